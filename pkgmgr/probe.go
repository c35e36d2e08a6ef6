package pkgmgr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// probeScript reads a machine in one command. Where rbee is installed it becomes
// `rbee hive inspect`; else it writes a record of the same shape with schema 0
// from what a POSIX shell can find out. The four %s stand for whether accelerators
// are asked for, the arguments of inspect, and the names of commands and libraries.
//
// Values go through q, which makes them safe inside a JSON string. Accelerators are
// those that package gpu sees, so that an install decides as the installed rbee will.
const probeScript = `ask_devices=%s
R="${RBEE_HOME:-$HOME/.local/share/rbee}"
B="$R/bin/rbee"
rbee=null broken=
if [ -e "$B" ]; then
	if out=$("$B" hive inspect %s 2>&1 </dev/null); then
		case $out in *"$(printf '\036{')"*)
			printf '%%s\n' "$out"
			exit 0
		esac
		broken="bin/rbee hive inspect answered no record: $out"
	else
		broken="bin/rbee hive inspect failed with status $?: $out"
	fi
	rbee='{"version":"","sha256":"","size":0}'
elif [ -e "$R/run/hive.json" ] || [ -e "$R/bin/rbee.json" ]; then
	broken="bin/rbee is missing"
	rbee='{"version":"","sha256":"","size":0}'
fi
q() { printf '%%s' "$1" | tr '\n\t' '  ' | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g'; }
missing= D=$R
while [ ! -d "$D" ] && [ "$D" != / ] && [ -n "$D" ]; do
	[ "$D" = "$R" ] || missing="\"$(q "$D")\"${missing:+,}$missing"
	case $D in */*) D=${D%%/*} ;; *) D= ;; esac
	[ -n "$D" ] || D=/
done
free=$(df -Pk "$D" 2>/dev/null | tail -n 1 | { read -r _ _ _ k _ && printf '%%s' "$k"; })
case $free in ''|0*|*[!0-9]*) free=0 ;; *) free=${free}000 ;; esac
noexec=
if [ -r /proc/mounts ]; then
	m=$(df -Pk "$D" 2>/dev/null | tail -n 1 | { read -r _ _ _ _ _ m && printf '%%s' "$m"; })
	while read -r _ dir _ opts _; do
		if [ "$dir" = "$m" ]; then
			case ,$opts, in *,noexec,*) noexec=$m ;; *) noexec= ;; esac
		fi
	done </proc/mounts
fi
root=
commands=
for c in %s; do
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
	lookup() { # is $1 in one of the directories after it?
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
	for l in %s; do
		if (IFS=:; set -f; lookup "$l" $dirs); then
			libraries="$libraries${libraries:+,}\"$l\""
		fi
	done
	libraries="[$libraries]"
	[ -r "$root/opt/rocm/.info/version" ] && read -r rocm <"$root/opt/rocm/.info/version"
	rocm=${rocm%%%%[!0-9.]*}
	if [ -z "$rocm" ]; then
		for d in "$root"/opt/rocm-*; do
			v=${d##*/rocm-}
			case $v in ''|*[!0-9.]*) continue ;; esac
			# By name, 10.0 comes before 7.2; the names of one major version are in order.
			if [ -z "$rocm" ] || [ "${v%%%%.*}" -ge "${rocm%%%%.*}" ]; then rocm=$v; fi
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
devices= card=
if [ "$ask_devices" = 1 ]; then
	add() { devices="$devices{\"vendor\":\"$1\",\"name\":\"$(q "$2")\",\"memory_bytes\":${3:-0},\"error\":\"$(q "$4")\"},"; }
	pci=/sys/bus/pci
	for d in "$pci"/devices/*; do
		class= vendor= id= name= memory=
		[ -r "$d/class" ] && [ -r "$d/vendor" ] && read -r class <"$d/class" && read -r vendor <"$d/vendor"
		bus=${d##*/}
		case $class$vendor in
		0x03*0x10de|0x12*0x10de)
			card=1
			;;
		0x03*0x1002|0x12*0x1002)
			[ -r "$d/device" ] && read -r id <"$d/device"
			[ -r "$d/product_name" ] && read -r name <"$d/product_name"
			[ -r "$d/mem_info_vram_total" ] && read -r memory <"$d/mem_info_vram_total"
			case $memory in *[!0-9]*) memory= ;; esac
			case $id in
			0x1[1-9a-f]??|0x9[89a-f]??) # it is in the processor, and the driver lends it main memory
				lent=
				[ -r "$d/mem_info_gtt_total" ] && read -r lent <"$d/mem_info_gtt_total"
				case $lent in ''|*[!0-9]*) ;; *) memory=$((${memory:-0} + lent)) ;; esac
				;;
			esac
			if [ -e "$pci/drivers/amdgpu/$bus" ]; then
				add amd "${name:-AMD GPU $id}" "$memory"
			else
				add amd '' '' 'the amdgpu driver does not run this device'
			fi
			;;
		0x03*0x8086|0x12*0x8086)
			case $bus in *:00:*) continue ;; esac # it is in the processor
			[ -r "$d/device" ] && read -r id <"$d/device"
			if [ -e "$pci/drivers/xe/$bus" ] || [ -e "$pci/drivers/i915/$bus" ]; then
				add intel "Intel GPU $id"
			else
				add intel '' '' 'neither xe nor i915 runs this device'
			fi
			;;
		esac
	done
	limit=
	command -v timeout >/dev/null 2>&1 && limit='timeout 10'
	if command -v nvidia-smi >/dev/null 2>&1; then
		ask() { $limit nvidia-smi "--query-gpu=memory.total,driver_version,$1,name" --format=csv,noheader,nounits 2>&1 </dev/null; }
		if list=$(ask compute_cap) || list=$(ask index); then # old drivers do not tell the compute capability
			devices=$(printf '%%s\n' "$list" | while IFS=', ' read -r mib driver compute name; do
				case $mib in ''|*[!0-9]*) mib=0 ;; esac
				case $compute in *.*) ;; *) compute= ;; esac
				printf '{"vendor":"nvidia","name":"%%s","memory_bytes":%%s,"driver":"%%s","compute":"%%s"},' \
					"$(q "$name")" "$((mib * 1048576))" "$(q "$driver")" "$(q "$compute")"
			done)$devices
		elif [ -n "$card" ] || [ "$list" != 'No devices were found' ]; then
			add nvidia '' '' "$list"
		fi
	elif [ -n "$card" ]; then
		add nvidia '' '' 'the NVIDIA driver is not installed: there is no nvidia-smi'
	fi
	if [ "$(uname -s)" = Darwin ] && [ "$(uname -m)" = arm64 ]; then
		add apple "$(sysctl -n machdep.cpu.brand_string)" "$(sysctl -n hw.memsize)"
	fi
	known=true
else
	known=false
fi
printf '\036{"schema":0,"os":"%%s","arch":"%%s","libc":"%%s","hostname":"%%s","user":"%%s","home":"%%s","missing_dirs":[%%s],"disk_free":%%s,"noexec":"%%s","commands":[%%s],"libraries":%%s,"rocm":"%%s","rbee":%%s,"broken":"%%s","workers":[%%s],"devices":[%%s],"devices_known":%%s}\n' \
	"$(q "$(uname -s)")" "$(q "$(uname -m)")" "$(q "$libc")" "$(q "$(uname -n)")" "$(q "$(id -un)")" "$(q "$R")" \
	"$missing" "$free" "$(q "$noexec")" "$commands" "$libraries" "$(q "$rocm")" "$rbee" "$(q "$broken")" "$workers" "${devices%%,}" "$known"
`

// probe reads a machine with one command, or with none where its daemon tells. A
// daemon of another rbee than the one that is installed may tell it wrongly.
func probe(ctx context.Context, host Host, o ReadOptions) (*wire.State, error) {
	if t, ok := host.(Teller); ok {
		s, err := t.Tell(ctx, o)
		if err == nil && s.Schema == wire.Schema && s.Rbee != nil && s.Rbee.SHA256 == s.Daemon.SHA256 && s.Broken == "" {
			normalise(s)
			return s, nil
		}
	}
	ask, args := "0", ""
	if o.Devices {
		ask, args = "1", "--devices"
	}
	if o.Deep {
		args += " --deep"
	}
	var out bytes.Buffer
	limited := &limitWriter{w: &out, left: maxProbeOutput}
	if err := host.Script(ctx, fmt.Sprintf(probeScript, ask, args, strings.Join(wire.ProbedCommands, " "), strings.Join(wire.ProbedLibraries, " ")), limited, nil); err != nil {
		return nil, fmt.Errorf("reading the machine: %w", err)
	}
	var state wire.State
	if err := wire.NewReader(&out).Read(&state); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("reading the machine: its shell answered nothing that rbee understands")
		}
		return nil, fmt.Errorf("reading the machine: %w", err)
	}
	normalise(&state)
	return &state, nil
}

// maxProbeOutput bounds what a machine may answer, noise of its shell included.
const maxProbeOutput = 64 << 20

// normalise turns what a shell says of a platform into Go's words, refuses to
// take over names of workers that could not have come from rbee, and sorts the
// others.
func normalise(s *wire.State) {
	s.OS = strings.ToLower(s.OS)
	switch s.Arch {
	case "x86_64":
		s.Arch = "amd64"
	case "aarch64", "armv8l":
		s.Arch = "arm64"
	}
	if name, version, ok := strings.Cut(s.Libc, " "); ok {
		s.Libc, s.LibcVersion = name, version
	}
	kept := s.Workers[:0]
	for _, w := range s.Workers {
		if config.ValidWorkerType(w.Type) {
			kept = append(kept, w)
		}
	}
	sort.Slice(kept, func(i, j int) bool { return kept[i].Type < kept[j].Type })
	s.Workers = kept
}

// limitWriter fails once more than left bytes were written.
type limitWriter struct {
	w    io.Writer
	left int
}

func (l *limitWriter) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, errors.New("the machine answers too much")
	}
	l.left -= len(p)
	return l.w.Write(p)
}
