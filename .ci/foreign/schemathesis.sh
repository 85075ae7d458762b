#!/usr/bin/env bash
# Asks an agent's local listener whatever schemathesis makes of its OpenAPI document, and holds every answer against it.
#
#     .ci/foreign/schemathesis.sh URL
#
# `schemathesis` 4 has to be in the PATH, and the agent needs `[local] control = true`. Takes 4 minutes at most. No answer may have a
# status of 500 or more, and each must be told of in the document: its status, its type, its headers, its JSON. Which expectations are
# left out, and why, is in schemathesis.toml beside this file.
set -euo pipefail

[ $# -eq 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
url=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

unload='/v2/repository/models/{model}/unload'
left_out=(--exclude-path "$unload")
# Its clients know 500 as the answer of a server that has no detector for persons, which is no fault of what was asked.
if curl --silent --fail --max-time 10 --request POST "$url/v1/vision/listmodels" | grep -q '"models":\[\]'; then
    echo 'There is no detector: /request is left out.'
    left_out+=(--exclude-path /request)
fi

run() {
    local seconds=$1
    shift
    timeout --kill-after=5 $((seconds + 45)) \
        schemathesis --config-file "$here/schemathesis.toml" run "$url/openapi.json" \
        --phases examples,coverage,fuzzing --max-examples 20 --max-time "$seconds" --workers 1 --continue-on-failure \
        --request-timeout 30 --seed 1 --warnings off "$@"
}

# Two processes of one thread each, not two threads: Python 3.11 counts the depth of its parser in one place for all threads, and ends
# with "AST constructor recursion depth mismatch" when two of hypothesis's parse at once.
run 140 --include-path-regex '^/v2' "${left_out[@]}" >others 2>&1 &
others=$!
code=0
run 140 --exclude-path-regex '^/v2' "${left_out[@]}" || code=$?
wait "$others" || code=$?
cat others
[ "$code" -eq 0 ] || exit "$code"
# What takes models away comes last: before it, there would be nothing to ask the others.
run 10 --include-path "$unload"
