B="${RBEE_HOME:-$HOME/.local/share/rbee}/bin/rbee"
[ -e "$B" ] || { printf '\036{"os":""}\n'; exit 0; }
exec "$B" hive capabilities </dev/null
