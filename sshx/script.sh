# Runs a script. "$script" is replaced by the quoted script. A background watcher waits for
# EOF on standard input and then sends SIGHUP to the process group.
#
# The lines are joined with spaces. Therefore each statement ends with a semicolon.
# ": start" is replaced by the command that prints the start mark.
: start;
exec 3<&0 </dev/null;
# shellcheck disable=SC2034 # read needs a name
{ read -r x <&3; kill -0 $$ && kill -HUP 0; } >/dev/null 2>&1 & _sshx=$!;
exec 3<&-; trap : PIPE;
# shellcheck disable=SC2154 # replaced before the script runs
eval "$script";
set -- $?; kill $_sshx 2>/dev/null; exit "$1";
