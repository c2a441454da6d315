#!/usr/bin/env bash
# Tries the commands of a host of VMs as somebody would who has just read --help, wrong uses included. Every step says what it expects; the
# first one that is otherwise ends the script with the step's words and what came instead.
#
#   ACTORVMM="dotnet .../actorvmm.dll" KERNEL=ELF-that-prints-an-exclamation-mark-and-halts README=README.md PORT=free commands.sh
set -uo pipefail

read -ra program <<<"$ACTORVMM"
work=$(mktemp -d)
export ACTORVMM_SOCKET=$work/host.sock
host=
trap '[[ -n $host ]] && kill -TERM "$host" 2>/dev/null; wait; rm -rf -- "$work"' EXIT

actorvmm() { timeout 240 "${program[@]}" "$@"; }

steps=0
# expect WHAT STATUS PATTERN COMMAND...: status and the pattern (extended, over stdout and stderr together)
expect() {
  local what=$1 status=$2 pattern=$3 got out
  shift 3
  out=$(actorvmm "$@" 2>&1 </dev/null)
  got=$?
  steps=$((steps + 1))
  if [[ $got != $status ]] || ! grep -Eqz -- "$pattern" <<<"$out"; then
    printf 'step %d: %s\n  actorvmm %s\n  expected status %s and /%s/, got status %s and:\n%s\n' \
      "$steps" "$what" "$*" "$status" "$pattern" "$got" "$out"
    exit 1
  fi
}

# expect_json WHAT FILTER COMMAND...: status 0, and standard output is JSON for which jq's filter is true
expect_json() {
  local what=$1 filter=$2 out got
  shift 2
  command -v jq >/dev/null || return 0
  out=$(actorvmm "$@" 2>"$work/errors" </dev/null)
  got=$?
  steps=$((steps + 1))
  if ((got != 0)) || [[ -s $work/errors ]] || ! jq -es "$filter" <<<"$out" >/dev/null; then
    printf 'step %d: %s\n  actorvmm %s\n  expected JSON with %s, got:\n%s\n%s\n' "$steps" "$what" "$*" "$filter" "$out" "$(<"$work/errors")"
    exit 1
  fi
}

# wait_for WHAT FILE PATTERN: until a file has it
wait_for() {
  local _
  for _ in $(seq 4800); do
    grep -Eqs -- "$3" "$2" && return
    read -rt 0.05 <> <(:) || true
  done
  printf 'not seen: %s; %s has:\n' "$1" "$2"
  cat "$2"
  exit 1
}

cat >"$work/fleet.conf" <<EOF
host { firecracker-sockets = fc, console-kib = 16 }
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

expect '--check wants a file'         153 'needs --config FILE'                            host --check
expect 'the version'                 0   '^[0-9]+[.]'                                     --version
expect 'an option of no command'     153 "'--fast'"                                       ps --fast
expect 'a shell that is not known'   153 'fish'                                           completion fish
expect 'a count that is none'        153 'few'                                            top -n few
expect 'a demo of too many'          153 '--vcpus 999: allowed is 1 to'                   demo --vcpus 999
expect 'a demo without its kernel'   153 'no such file'                                   demo --kernel /nowhere
expect 'crashes without --crash'     153 '--crashes needs --crash'                        demo --crashes 3
expect 'a forward without a network' 153 'give --net'                                     demo --forward tcp:1-2
expect 'an unknown hypervisor'       153 'xen'                                            run --hypervisor xen
expect 'an override without a key'   153 'key=value'                                      check x.conf --set count
expect 'no such description'         152 'nowhere'                                        check /nowhere.conf
expect 'an experiment of nothing'    153 'experiment'                                     experiment
expect 'an experiment that is not'   152 'nowhere'                                        experiment run /nowhere.conf
expect 'no such run'                 '[1-9]*' 'nowhere'                                   experiment diff /nowhere/a /nowhere/b
echo "kernel.path = \"$KERNEL\", memory.size-mib = 2, hypervisor = soft" >"$work/one.conf"
expect 'one VM is valid'             0   'valid: 1 vCPU, 2 MiB'                           check "$work/one.conf"
expect 'until it is overridden'      152 'vcpus.count = 0: allowed is'                    check "$work/one.conf" --set vcpus.count=0
expect_json 'the doctor for machines' 'length == 1'                                       doctor --json

# Each command that --help names has help of its own, and a place in the README.
commands=$(actorvmm --help | sed -n '/^Commands:/,$ s/^  \([a-z]\+\) .*/\1/p')
[[ $(wc -w <<<"$commands") -ge 25 ]] || { echo "commands in --help: $commands"; exit 1; }
for command in $commands; do
  grep -Eq "\`([^\`]*[ ,])?$command\b" "$README" || { echo "the README does not tell of $command"; exit 1; }
done
printf '%s\n' $commands | xargs -P 2 -I {} timeout 240 "${program[@]}" {} --help >"$work/help" || { echo 'a command has no help'; exit 1; }
for command in run replay diff; do actorvmm experiment "$command" --help >>"$work/help"; done
# Every option that help knows is one that completion knows, and the other way around.
help=$(grep -Eo -- '--[a-z][a-z-]+' "$work/help" | sort -u)
known=$(actorvmm completion bash | sed -n "/then reply='--/ s/.*reply='\(.*\)'/\1/p" | tr ' ' '\n' | sort -u)
for option in $known; do
  grep -qx -- "$option" <<<"$help" || { echo "help does not tell of $option"; exit 1; }
done

# One VM on its own: it runs until it is told to end.
"${program[@]}" run "$work/one.conf" >"$work/one.out" 2>"$work/one.err" &
one=$!
wait_for 'the guest of run' "$work/one.out" '!'
kill -TERM "$one"
wait "$one"
status=$?
[[ $status == 143 ]] || { echo "run ended with status $status after SIGTERM"; cat "$work/one.err"; exit 1; }

echo 'a token that is long enough' >"$work/token"
"${program[@]}" host --config "$work/fleet.conf" --tcp-port "$PORT" --token-file "$work/token" 2>"$work/host.log" &
host=$!
for _ in $(seq 600); do
  [[ $(actorvmm ps --names 2>/dev/null | wc -l) == 3 && $(actorvmm ps 2>/dev/null | grep -c running) == 2 ]] && break
  kill -0 "$host" 2>/dev/null || { echo 'the host ended:'; cat "$work/host.log"; exit 1; }
done

expect 'what runs'                   0   'web-0 +running.*web-1 +running'                 ps
expect 'for machines'                0   '"name":"db".*"state":"stopped"'                 ps --json
expect 'only the names'              0   '^db.web-0.web-1.$'                              ps --names
expect_json 'all of them'            '.[0] | length == 3 and all(.name and .state and .restartPolicy)' ps --json
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
expect_json 'a pulse for machines'   '.[0].pauseMilliseconds > 0'                         pulse db --json
expect_json 'what it printed'        '.[0] == "!"'                                        logs db --json
expect_json 'a device for machines'  '.[0].path == "/user/host/db/devices/serial0" and .[0].values.mailbox == "0"' inspect db/devices/serial0 --json
expect_json 'every actor has a depth' '[.. | objects | select(.path? and .path != "/user") | .values.mailbox] | length > 30 and all' tree --json
expect_json 'events for machines'    'length > 5 and all(.number and .at and .kind)'      events --json
expect_json 'top for machines'       '.[0] | length == 3'                                 top -n 1 -d 0.1 --json
expect_json 'pause for machines'     '.[0].state == "paused"'                             pause db --json
expect_json 'resume for machines'    '.[0].state == "running"'                            resume db --json
expect 'a fault'                     0   '^.$'                                            inject db 'kind = actor-crash, device = serial0, times = 1'
expect 'no such fault'               152 'did you mean actor-crash'                       inject db 'kind = actor-crahs'
expect 'healed'                      0   '^.$'                                            inject db --heal
expect 'a cable that is not there'   33  'no network interface net0'                      link db net0 down
expect 'events of one'               0   'db +fault +injected'                            events --vm db
expect 'too many bytes'              153 "Cannot parse argument 'all'"                    logs db --tail all
expect 'another socket'              33  'no host answers on /nowhere.sock'               ps --socket /nowhere.sock
expect 'this socket'                 0   'db +running'                                    ps -s "$ACTORVMM_SOCKET"

# A viewer that stays: it sees what comes, and its leaving stops nothing.
set -m # else a shell's background jobs do not hear Ctrl-C
"${program[@]}" events -f --vm extra --json >"$work/events.out" 2>&1 &
watching=$!
set +m
(cd "$work" && cp "$KERNEL" near && echo '{"name":"extra","kernel":{"path":"near"},"memory":{"size-mib":2},"hypervisor":"soft"}' >vm.json)
expect 'paths begin at the file'     0   '^extra: created, running'                       create "$work/vm.json" --start
wait_for 'the event of a start' "$work/events.out" '"vm":"extra","kind":"started"'
kill -INT "$watching"; wait "$watching"
[[ $? == 130 ]] || { echo 'events -f does not end with Ctrl-C'; exit 1; }
"${program[@]}" logs -f extra >"$work/logs.out" 2>&1 &
watching=$!
wait_for 'the log of the first run' "$work/logs.out" '^!$'
expect 'there is one already'        33  'a VM named extra already'                       create "$work/vm.json"
expect 'no JSON'                     152 'body'                                           create "$KERNEL"
expect_json 'a restart for machines' '.[0].runs == 2'                                     restart extra -t 0s --json
wait_for 'the log of the second run' "$work/logs.out" '^!!$'
[[ $(actorvmm console --replay 1 extra </dev/null) == '!' ]] || { echo 'the console does not replay'; exit 1; }
[[ $(actorvmm console --json --replay 1 extra </dev/null) == '"!"' ]] || { echo 'the console has no JSON'; exit 1; }
expect 'it runs on'                  0   'extra +running'                                 ps
expect_json 'rm for machines'        '.[0] == "extra"'                                    rm -f extra --json
wait "$watching" || { echo 'logs -f does not end with its VM'; cat "$work/logs.out"; exit 1; }
[[ $(actorvmm create - <"$work/vm.json" 2>&1) == *'no such file'* ]] || { echo 'create - took a relative path from elsewhere'; exit 1; }

# The same over TCP, for who has the token.
if command -v curl >/dev/null; then
  api=http://127.0.0.1:$PORT
  [[ $(curl -s -o "$work/body" -w '%{http_code}' "$api/vms") == 401 ]] || { echo 'TCP without the token'; exit 1; }
  grep -q '"code":"unauthorized"' "$work/body" || { echo 'another shape of an error'; exit 1; }
  said=$(curl -s -H "Authorization: Bearer $(<"$work/token")" "$api/vms/db")
  [[ $said == *'"name":"db"'* ]] || { echo "with the token: $said"; exit 1; }
fi

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
echo "host { max-vms = 9 }, vms { cache { kernel.path = \"$KERNEL\", memory.size-mib = 2, hypervisor = soft, stop.deadline = 200ms } }" >"$work/fleet.conf"
expect_json 'reload for machines'    '(.[0].removed | sort == ["web-0", "web-1"]) and (.[0].host | index("max-vms"))' reload --json

# Completion, in a shell that has only this; the names are those of the host that runs.
actorvmm completion bash >"$work/completion" || exit 1
printf '#!/bin/sh\nexec %s "$@"\n' "$ACTORVMM" >"$work/actorvmm"
chmod +x "$work/actorvmm"
complete() { bash -c 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _actorvmm; echo "${COMPREPLY[*]}"' "$work/completion" "$@"; }
[[ $(complete actorvmm re) == 'restart resume reload' ]] || { echo "completion of re: $(complete actorvmm re)"; exit 1; }
[[ $(complete "$work/actorvmm" stop ca) == cache ]] || { echo "completion of stop ca: $(complete "$work/actorvmm" stop ca)"; exit 1; }

kill -TERM "$host"
wait "$host"
status=$?
host=
[[ $status == 0 ]] || { echo "the host ended with status $status:"; cat "$work/host.log"; exit 1; }
[[ ! -e $ACTORVMM_SOCKET ]] || { echo 'the socket is left behind'; exit 1; }
printf '%d steps\n' "$steps"
