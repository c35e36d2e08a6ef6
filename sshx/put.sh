# Receives a file. The arguments are the temporary file, the target, the mode and the
# SHA-256. The script prints gzip or cat and then reads the content: compressed for gzip,
# uncompressed for cat. Exit status 65 means that the checksum does not match. If no
# checksum tool is available, the script sends the file back and waits up to 30 seconds
# until the caller has renamed or removed it. The final rm ignores signals, because several
# signals often arrive when a connection ends.
#
# openssl is tried first because it is three times as fast as the other tools.
#
# The lines are joined with spaces and put in single quotes in a command line for any login
# shell. Therefore each statement ends with a semicolon, and the script must not contain a
# backslash, an exclamation mark or a single quote.
t=$1; p=$2; m=$3; s=$4; umask 077;
clean() { trap "" HUP INT PIPE TERM; rm -f "$t"; }; trap clean EXIT; trap "exit 1" HUP INT PIPE TERM;
fail() { echo "$2" >&2; exit "$1"; };
z="cat"; if command -v gzip >/dev/null 2>&1; then z="gzip"; fi;
# ": start" is replaced by the command that prints the start mark.
: start;
echo $z;
if test -d "$p"; then fail 1 "$p: is a directory"; fi;
mkdir -p "${p%/*}/" || exit 1; set -C;
if test $z = gzip; then gzip -dc >"$t" || exit 1; else cat >"$t" || exit 1; fi;
sum() { case $1 in openssl) openssl dgst -sha256 -r;; sha256sum) sha256sum;; shasum) shasum -a 256;; sha256) sha256 -q;; esac; };
a=; for h in openssl sha256sum shasum sha256; do
	if command -v $h >/dev/null 2>&1; then a=$(sum $h <"$t" 2>/dev/null); if test -n "$a"; then break; fi; fi; done;
chmod "$m" "$t" || exit 1;
if test -n "$a"; then
	case $a in "$s"*) mv -f "$t" "$p" || exit 1;; *) fail 65 "got ${a%% *}, want $s";; esac; exit 0; fi;
# shellcheck disable=SC2046 # some systems print spaces before the number
set -- $(wc -c <"$t"); echo "$1"; cat "$t" || exit 1;
i=0; while test -e "$t" && test $i -lt 30; do sleep 1; i=$((i+1)); done
