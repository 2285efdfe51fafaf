#!/bin/sh
# keeper.sh DIRECTORY COMMAND... : runs the command with its output in DIRECTORY/log, prints its process id, and ends with
# it. Standard input is the leash: a line names the signal to send; when it closes, because the test process is gone in
# whatever way, the command is killed and DIRECTORY removed.
directory=$1
shift
exec 3<&0 2>>"$directory/log"
"$@" </dev/null >&2 3<&- &
command=$!
echo $command
{
    while read -r signal <&3; do kill -"$signal" $command; done
    : >"$directory/abandoned"
    kill -KILL $command
} >/dev/null 2>&1 &
leash=$!
wait $command
kill $leash 2>/dev/null
[ ! -e "$directory/abandoned" ] || rm -rf "$directory"
