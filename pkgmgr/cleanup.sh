uploads=$1 R=$2
shift 2
if [ "$uploads" = yes ] && [ -d "$R" ]; then
	rm -f "$R"/bin/.rbee-* "$R"/bin/..rbee-* "$R"/bin/.rbee.json[0-9]* "$R/bin/rbee.prev" "$R/bin/rbee.json" \
		"$R/run/settings.json" "$R/run/hive.json" "$R/run/hive.lock" "$R/run/supervisor.json" "$R/run/token" \
		"$R/logs/hive.log" "$R/logs/hive.log.1"
	if [ -e "$R/lock" ] && command -v flock >/dev/null 2>&1; then
		flock -n "$R/lock" rm -f "$R/lock"
	else
		rm -f "$R/lock"
	fi
fi
rmdir "$R/bin" "$R/run" "$R/logs" "$R/workers" "$R" "$@" 2>/dev/null
exit 0
