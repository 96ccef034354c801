#!/bin/sh
# serve.sh BIN API: Prefect's server, work pool, deployments and a worker, until Ctrl-C or SIGTERM.
#
# Server and worker have process groups of their own, so that Ctrl-C reaches this script alone. It
# ends the worker and its runs first, and then the server, which they still need to say so.
bin=$1 api=$2 server='' worker='' seconds=15
export PREFECT_API_URL="$api" PREFECT_HOME="$PWD/data/prefect"

apart() {
    exec "$bin/python" -c "import os, sys; os.setpgrp(); os.execv(sys.argv[1], sys.argv[1:])" "$@"
}

descendants() {  # Prefect gives runs sessions of their own
    ps -eo pid=,ppid= | awk -v root="$1" '
        { parent[$1] = $2 }
        END {
            for (pid in parent)
                for (above = parent[pid]; above > 1; above = parent[above])
                    if (above == root) { print pid; break }
        }'
}

alive() {
    for pid in "$@"; do kill -0 "$pid" 2>/dev/null && return 0; done
    return 1
}

end() {  # SIGTERM, and SIGKILL to what is left after a while
    kill "$@" 2>/dev/null || return 0
    waited=0
    while alive "$@" && [ $waited -lt $seconds ]; do
        sleep 1
        waited=$((waited + 1))
    done
    kill -KILL "$@" 2>/dev/null
}

finish() {
    trap '' INT TERM EXIT
    for process in $worker $server; do
        started=$(descendants "$process")
        end "$process"
        # shellcheck disable=SC2086  # a list of process ids
        [ -z "$started" ] || end $started
    done
    exit "$1"
}
trap 'finish 130' INT
trap 'finish 143' TERM
trap 'finish 1' EXIT

mkdir -p data
apart "$bin/python" -m flows.prefect_server >data/prefect-server.log 2>&1 &
server=$!
until "$bin/python" -c "import urllib.request as u; u.urlopen('$api/health')" 2>/dev/null; do
    kill -0 $server 2>/dev/null || { cat data/prefect-server.log && finish 1; }
    sleep 1
done
"$bin/prefect" --no-prompt work-pool create llmkt --type process --overwrite || finish 1
"$bin/prefect" --no-prompt deploy --all || finish 1
echo "Prefect is at ${api%/api}; in another terminal: export PREFECT_API_URL=$api"
apart "$bin/prefect" worker start --pool llmkt &
worker=$!
wait $worker
finish 1
