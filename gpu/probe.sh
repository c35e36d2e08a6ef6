# Records the input of gpu.Parse: the output and exit status of the vendors' tools, and the
# kernel's files about accelerators. It does not interpret them.
#
# A section starts with the byte 034 (octal) and its kind:
#
#	os NAME              the output of uname -s
#	file PATH            a file in /sys, followed by its contents or its first line
#	link PATH            a symbolic link in /sys, followed by its target
#	run STATUS COMMAND   a tool that was run, followed by its standard output
#	err                  the standard error of the previous tool
#	end                  the recording is complete
#
# The caller sets tool_dirs (directories to search after PATH), nvidia_fields (fields to query
# from nvidia-smi) and tool_limit (time limit for each tool in seconds).
: "${tool_dirs=}" "${nvidia_fields=}" "${tool_limit=10}"
root=
sys=/sys
LC_ALL=C
export LC_ALL

find_tool() { # sets tool to the path of the program $1
	tool=$(command -v "$1" 2>/dev/null) && return 0
	for dir in $tool_dirs; do
		tool=$root$dir/$1
		[ -f "$tool" ] && [ -x "$tool" ] && return 0
	done
	return 1
}

# With -k, timeout(1) also stops a tool that ignores SIGTERM. BusyBox before 1.34 and
# coreutils before 8.6 do not support -k, and BusyBox before 1.30 requires -t for the limit.
if timeout -k 1 "$tool_limit" sh -c : </dev/null >/dev/null 2>&1; then
	limited() { timeout -k 1 "$tool_limit" "$@"; }
elif timeout "$tool_limit" sh -c : </dev/null >/dev/null 2>&1; then
	limited() { timeout "$tool_limit" "$@"; }
elif timeout -t "$tool_limit" sh -c : </dev/null >/dev/null 2>&1; then
	limited() { timeout -t "$tool_limit" "$@"; }
else
	limited() { "$@"; }
fi

record() { # runs the command line "$@" with the program $tool, and prints its sections
	line=$*
	shift
	{
		errors=$({
			output=$(limited "$tool" "$@" 2>&3 3>&- 4>&- </dev/null)
			printf '\034run %s %s\n%s\n' "$?" "$line" "$output" >&4
		} 3>&1)
		printf '\034err\n%s\n' "$errors"
	} 4>&1
}

query() { # records the command "$@" and sets section; fails if the tool is not installed
	find_tool "$1" || return 1
	section=$(record "$@")
	printf '%s\n' "$section"
}

query_rocm() {
	query rocm-smi --showproductname --showuniqueid --showbus --showmeminfo vram \
		--showuse --showtemp --showpower --showdriverversion --json
}

record_line() { # records the first line of the file $1
	text=
	[ -r "$sys/$1" ] || return 0
	{ IFS= read -r text || [ -n "$text" ]; } 2>/dev/null <"$sys/$1" || return 0
	printf '\034file %s\n%s\n' "$1" "$text"
}

record_gpus() {
	printf '\034os %s\n' "$(uname -s)"
	if [ "$(uname -s)" = Darwin ]; then
		query system_profiler SPDisplaysDataType -json
		query sysctl -n hw.memsize
		return
	fi

	amd='' intel=''
	for path in "$sys"/bus/pci/devices/*; do
		class='' vendor=''
		[ -r "$path/class" ] && [ -r "$path/vendor" ] && read -r class <"$path/class" && read -r vendor <"$path/vendor"
		case $class$vendor in
		0x03*0x10de | 0x12*0x10de) ;;
		0x03*0x1002 | 0x12*0x1002) amd=1 ;;
		0x03*0x8086 | 0x12*0x8086) case ${path##*/} in *:00:*) continue ;; esac; intel=1 ;; # devices on bus 0 are integrated
		*) continue ;;
		esac
		card=bus/pci/devices/${path##*/}
		for name in class vendor device product_name unique_id \
			mem_info_vram_total mem_info_vram_used mem_info_gtt_total mem_info_gtt_used; do
			record_line "$card/$name"
		done
		for file in "$path"/tile*/physical_vram_size_bytes "$path"/drm/card*/lmem_total_bytes; do
			record_line "${file#"$sys"/}"
		done
		for driver in "$sys"/bus/pci/drivers/*/"${path##*/}"; do
			driver=${driver%/*}
			[ -e "$driver/${path##*/}" ] && printf '\034link %s\n%s\n' "$card/driver" "../drivers/${driver##*/}"
		done
	done
	if [ -n "$amd" ]; then
		for file in "$sys"/class/kfd/kfd/topology/nodes/*/properties; do
			[ -r "$file" ] || continue
			printf '\034file %s\n' "${file#"$sys"/}"
			cat "$file" 2>/dev/null
		done
	fi

	fields=$nvidia_fields
	while query nvidia-smi "--query-gpu=$fields" --format=csv,noheader,nounits; do
		# Repeat the query without a field that the driver does not support.
		case $section in *'Field "'*'" is not a valid field to query'*) ;; *) break ;; esac
		field=${section#*'Field "'}
		field=${field%%'"'*}
		case ,$fields, in *",$field,"*) ;; *) break ;; esac
		fields=,$fields,
		fields=${fields%%",$field,"*},${fields#*",$field,"}
		fields=${fields#,}
		fields=${fields%,}
	done

	if query amd-smi static --asic --bus --driver --vram --json; then
		case $section in
		*'"asic"'*) query amd-smi list --json ;;
		*) query_rocm ;;
		esac
	else
		query_rocm
	fi

	if [ -n "$intel" ] && query xpu-smi discovery -j; then
		list=$section id=0
		while case $list in *'"device_id": '"$id"[!0-9]* | *'"device_id":'"$id"[!0-9]*) ;; *) false ;; esac do
			query xpu-smi discovery -d "$id" -j
			id=$((id + 1))
		done
	fi
}

{
	record_gpus
	printf '\034end\n'
} | tr -d '\036' # this byte starts a record in the protocol of the caller
