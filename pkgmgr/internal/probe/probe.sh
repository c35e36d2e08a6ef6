# Reads the state of a machine. If rbee is installed, the script prints the output of
# `rbee hive inspect "$@"`. Otherwise it prints a record of the same form with schema 0, which
# contains the properties that a POSIX shell can read. The function q escapes values for JSON
# strings. The caller sets probed_commands and probed_libraries, the names to search for.
: "${probed_commands=}" "${probed_libraries=}"
R="${RBEE_HOME:-$HOME/.local/share/rbee}"
B="$R/bin/rbee"
rbee=null broken=
if [ -e "$B" ]; then
	if out=$("$B" hive inspect "$@" 2>&1 </dev/null); then
		case $out in *"$(printf '\036{')"*)
			printf '%s\n' "$out"
			exit 0
		esac
		broken="bin/rbee hive inspect printed no record: $out"
	else
		broken="bin/rbee hive inspect failed with status $?: $out"
	fi
	rbee='{"version":"","sha256":"","size":0}'
elif [ -e "$R/run/hive.json" ] || [ -e "$R/bin/rbee.json" ]; then
	broken="bin/rbee is missing"
	rbee='{"version":"","sha256":"","size":0}'
fi
q() { printf '%s' "$1" | tr '\n\t' '  ' | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g'; }
missing='' D=$R
while [ ! -d "$D" ] && [ "$D" != / ] && [ -n "$D" ]; do
	[ "$D" = "$R" ] || missing="\"$(q "$D")\"${missing:+,}$missing"
	case $D in */*) D=${D%/*} ;; *) D= ;; esac
	[ -n "$D" ] || D=/
done
free=$(df -Pk "$D" 2>/dev/null | tail -n 1 | { read -r _ _ _ k _ && printf '%s' "$k"; })
case $free in ''|0*|*[!0-9]*) free=0 ;; *) free=${free}000 ;; esac
noexec=
if [ -r /proc/mounts ]; then
	m=$(df -Pk "$D" 2>/dev/null | tail -n 1 | { read -r _ _ _ _ _ m && printf '%s' "$m"; })
	while read -r _ dir _ opts _; do
		if [ "$dir" = "$m" ]; then
			case ,$opts, in *,noexec,*) noexec=$m ;; *) noexec= ;; esac
		fi
	done </proc/mounts
fi
root=
commands=
for c in $probed_commands; do
	if command -v "$c" >/dev/null 2>&1 || { [ "$c" = nvcc ] && { [ -x "${CUDA_HOME:-/}/bin/nvcc" ] || [ -x "$root/usr/local/cuda/bin/nvcc" ]; }; }; then
		commands="$commands${commands:+,}\"$c\""
	fi
done
libc=
for f in /lib/ld-musl-*; do [ -e "$f" ] && libc=musl; done
[ -n "$libc" ] || libc=$(getconf GNU_LIBC_VERSION 2>/dev/null)
libraries=null rocm=
if [ -n "$libc" ] && [ "$(uname -s)" = Linux ]; then
	libraries=
	lookup() { # reports whether any of the directories $2... contains the file $1
		file=$1
		shift
		for dir in "$@"; do
			[ -e "$dir/$file" ] && return 0
		done
		return 1
	}
	dirs=
	for f in "$root"/etc/ld.so.conf.d/*.conf "$root/etc/ld.so.conf"; do
		[ -r "$f" ] && while read -r dir || [ -n "$dir" ]; do
			case $dir in /*) dirs="$dirs:$root$dir" ;; esac
		done <"$f"
	done
	for dir in /lib/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu /lib/aarch64-linux-gnu /usr/lib/aarch64-linux-gnu \
		/lib64 /usr/lib64 /lib /usr/lib /usr/local/lib; do
		dirs="$dirs:$root$dir"
	done
	dirs="$dirs:${LD_LIBRARY_PATH:-}"
	for l in $probed_libraries; do
		# shellcheck disable=SC2086 # dirs is split at the colons
		if (IFS=:; set -f; lookup "$l" $dirs); then
			libraries="$libraries${libraries:+,}\"$l\""
		fi
	done
	libraries="[$libraries]"
	[ -r "$root/opt/rocm/.info/version" ] && read -r rocm <"$root/opt/rocm/.info/version"
	rocm=${rocm%%[!0-9.]*}
	if [ -z "$rocm" ]; then
		for d in "$root"/opt/rocm-*; do
			v=${d##*/rocm-}
			case $v in ''|*[!0-9.]*) continue ;; esac
			# The names are sorted as strings, so 10.0 comes before 7.2. Versions with the
			# same major version are in order.
			if [ -z "$rocm" ] || [ "${v%%.*}" -ge "${rocm%%.*}" ]; then rocm=$v; fi
		done
	fi
fi
workers=
for f in "$R"/workers/rbee-worker-*; do
	[ -e "$f" ] || [ -L "$f" ] || continue
	t=${f##*/rbee-worker-}
	case $t in ''|-*|*[!a-z0-9-]*) continue ;; esac
	workers="$workers${workers:+,}{\"type\":\"$t\",\"foreign\":true}"
done
printf '\036{"schema":0,"os":"%s","arch":"%s","libc":"%s","hostname":"%s","user":"%s","home":"%s","missing_dirs":[%s],"disk_free":%s,"noexec":"%s","commands":[%s],"libraries":%s,"rocm":"%s","rbee":%s,"broken":"%s","workers":[%s]}\n' \
	"$(q "$(uname -s)")" "$(q "$(uname -m)")" "$(q "$libc")" "$(q "$(uname -n)")" "$(q "$(id -un)")" "$(q "$R")" \
	"$missing" "$free" "$(q "$noexec")" "$commands" "$libraries" "$(q "$rocm")" "$rbee" "$(q "$broken")" "$workers"
