#!/usr/bin/env bash
# Tries the commands of a host of VMs as somebody would who has just read --help, wrong uses included. Every step says what it expects; the
# first one that is otherwise ends the script with the step's words and what came instead.
#
#   ACTORVMM="dotnet .../actorvmm.dll" KERNEL=ELF-that-prints-an-exclamation-mark-and-halts commands.sh
set -uo pipefail

read -ra program <<<"$ACTORVMM"
work=$(mktemp -d)
export ACTORVMM_SOCKET=$work/host.sock
host=
trap '[[ -n $host ]] && kill -TERM "$host" 2>/dev/null; wait; rm -rf -- "$work"' EXIT

actorvmm() { timeout 60 "${program[@]}" "$@"; }

steps=0
# expect WHAT STATUS PATTERN COMMAND...: status and the pattern (extended, over stdout and stderr together)
expect() {
  local what=$1 status=$2 pattern=$3 got out
  shift 3
  out=$(actorvmm "$@" 2>&1 </dev/null)
  got=$?
  steps=$((steps + 1))
  if [[ $got != "$status" ]] || ! grep -Eqz -- "$pattern" <<<"$out"; then
    printf 'step %d: %s\n  actorvmm %s\n  expected status %s and /%s/, got status %s and:\n%s\n' \
      "$steps" "$what" "$*" "$status" "$pattern" "$got" "$out"
    exit 1
  fi
}

cat >"$work/fleet.conf" <<EOF
host { firecracker-sockets = fc }
templates { tiny { kernel.path = "$KERNEL", memory.size-mib = 2, hypervisor = soft, stop.deadline = 200ms } }
vms {
  web { template = tiny, count = 2, restart { policy = always, back-off = 100ms } }
  db { template = tiny, start = manual }
}
EOF

# Before there is a host.
expect 'no host yet'                 33  'no host answers on .*start one with'            ps
expect 'no such command'             153 "'pss'"                                          pss
expect 'a command without its VM'    153 "argument 'VM' missing"                          start
expect 'a description with an error' 152 'no such file'                                   host --check --config /nowhere/fleet.conf
expect 'a right description'         0   'valid: 3 VMs, 6 MiB'                            host --check --config "$work/fleet.conf"
expect 'TCP without a token'         152 'needs a bearer token'                           host --config "$work/fleet.conf" --tcp-port 8080
expect 'help has examples'           0   'Examples:'                                      logs --help

"${program[@]}" host --config "$work/fleet.conf" 2>"$work/host.log" &
host=$!
for _ in $(seq 600); do
  [[ $(actorvmm ps --names 2>/dev/null | wc -l) == 3 && $(actorvmm ps 2>/dev/null | grep -c running) == 2 ]] && break
  kill -0 "$host" 2>/dev/null || { echo 'the host ended:'; cat "$work/host.log"; exit 1; }
done

expect 'what runs'                   0   'web-0 +running.*web-1 +running'                 ps
expect 'for machines'                0   '"name":"db".*"state":"stopped"'                 ps --json
expect 'only the names'              0   '^db.web-0.web-1.$'                              ps --names
expect 'start one'                   0   '^db: running'                                   start db
expect 'pause two'                   0   'db: paused.web-0: paused'                       pause db web-0
expect 'paused is seen'              0   'db +paused'                                     ps
expect 'resume'                      0   '^db: running'                                   resume db
expect 'a pulse'                     0   'stood still for [0-9.]+ ms'                     pulse db
expect 'no pulse for what is not'    33  'no VM named nix'                                pulse nix
expect 'the console was kept'        0   '!'                                              logs db
expect 'the end of it'               0   '^!.$'                                           logs db --tail 1
expect 'look at a device'            0   'serial0.* handled '                             inspect db/devices/serial0
expect 'look at a processor'         0   ' rip +0x'                                       inspect /user/host/db/vcpus/0
expect 'no such actor'               33  'there is no disk9 below'                        inspect db/disk9
expect 'the tree'                    0   'host.*db .*state=running.*serial0'              tree
expect 'the tree for machines'       0   '"path":"/user/host/db"'                         tree --json
expect 'what happened'               0   'db +started.*db +pulse'                         events
expect 'one look at what they do'    0   'EXITS/s'                                        top -n 1 -d 0.1
expect 'a wrong deadline'            152 'allowed is a time'                              stop db --deadline soon
expect 'it runs: no rm'              33  'stop it first, or remove it by force'           rm db
expect 'stop'                        0   '^db: stopped'                                   stop db --deadline 0s
expect 'stopped: no pause'           33  'db is stopped and cannot be paused'             pause db
expect 'restart'                     0   '^web-0: running'                                restart web-0 --deadline 0s
expect 'kill'                        0   '^web-1: stopped'                                kill web-1
expect 'one of two is wrong'         33  'nix.*1 of 2 did not work'                       start web-1 nix
expect 'rm'                          0   '^db: removed'                                   rm db
expect 'by force'                    0   '^web-0: removed'                                rm --force web-0

[[ -S $work/fc/web-1.sock ]] || { echo 'web-1 has no Firecracker socket'; exit 1; }
if command -v curl >/dev/null; then
  said=$(curl -s --unix-socket "$work/fc/web-1.sock" http://localhost/)
  [[ $said == *'"state":"Running"'* ]] || { echo "the Firecracker socket says: $said"; exit 1; }
fi

# What is new starts, what is gone goes, what has changed says so.
sed -i 's/count = 2/count = 2, memory.size-mib = 3/; s/db {/cache {/; s/start = manual/start = auto/' "$work/fleet.conf"
expect 'reload'                      0   'added +cache.*changed +web-1: takes effect'     reload
kill -HUP "$host"
expect 'a restart takes it'          0   'web-1: running'                                 restart web-1 --deadline 0s
expect 'and is seen'                 0   'web-1 .*/3 MiB'                                 ps
echo 'vms {' >"$work/fleet.conf"
expect 'an error changes nothing'    152 'not closed'                                     reload
expect 'all is as before'            0   'cache +running'                                 ps

# Completion, in a shell that has only this.
complete=$(actorvmm completion bash) || exit 1
words=$(bash -c "$complete"'; COMP_WORDS=(actorvmm re); COMP_CWORD=1; _actorvmm; echo "${COMPREPLY[*]}"')
[[ $words == 'resume restart reload' || $words == *resume*reload* ]] || { echo "completion of re: $words"; exit 1; }

kill -TERM "$host"
wait "$host"
status=$?
host=
[[ $status == 0 ]] || { echo "the host ended with status $status:"; cat "$work/host.log"; exit 1; }
[[ ! -e $ACTORVMM_SOCKET ]] || { echo 'the socket is left behind'; exit 1; }
printf '%d steps\n' "$steps"
