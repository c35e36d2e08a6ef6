R="${RBEE_HOME:-$HOME/.local/share/rbee}"
[ -e "$R/bin/rbee" ] || { printf '\036absent\n'; exit 0; }
J=$(cat "$R/run/hive.json" 2>/dev/null)
field() { v=${J#*\""$1"\": }; [ "$v" != "$J" ] || v=; v=${v#\"}; v=${v%%[\",]*}; }
alive() {
	field pid; p=$v
	case $p in ''|*[!0-9]*) return 1;; esac
	kill -0 "$p" 2>/dev/null || return 1
	{ read -r boot </proc/sys/kernel/random/boot_id && read -r stat <"/proc/$p/stat"; } 2>/dev/null || return 0
	field boot_id; [ "$v" = "$boot" ] || return 1
	field start_time
	# shellcheck disable=SC2086
	set -- ${stat##*)}
	[ "$v" = "${20}" ]
}
alive || J=
printf '\036home %s\n\036token %s\n\036record %s\036end\n' "$R" "$(cat "$R/run/token" 2>/dev/null)" "$J"
