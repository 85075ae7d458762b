#!/usr/bin/env bash
# Asks a running relay with curl, a client that shares no line with Adit, and says what was not as it should be.
#
#     .ci/foreign/curl.sh URL CA_FILE KEY_FILE MODEL IMAGE CLASS
#
# CLASS is what the model sees in IMAGE (a PNG or JPEG), as it stands in an answer.
set -euo pipefail

[ $# -eq 6 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
url=$1 ca=$2 key=$(cat "$3") model=$4 image=$5 class=$6
infer=$url/v2/models/$model/infer
passed=0 failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What curl does, with the answer's head and body in files; its status code in $status, its version in $version.
ask() {
    : >"$work/head" && : >"$work/body"
    local said
    said=$(curl --silent --max-time 60 --cacert "$ca" --dump-header "$work/head" --output "$work/body" \
        --write-out '%{http_code} %{http_version}' "$@" 2>"$work/error") || said="curl-$? -"
    status=${said% *} version=${said#* }
}

with_key() {
    ask --header "authorization: Bearer $key" "$@"
}

# $1: what is checked. $2: the status that is right. $3: a pattern of the answer's body, $4: of its head, in any case.
is() {
    local why=''
    [ "$status" = "$2" ] || why="status $status, not $2"
    [ -z "${3:-}" ] || grep -Eqi -- "$3" "$work/body" || why="${why:+$why; }no $3 in the body"
    [ -z "${4:-}" ] || grep -Eqi -- "$4" "$work/head" || why="${why:+$why; }no $4 in the head"
    verdict "$1" "$why"
    [ -z "$why" ] || head -c 400 "$work/head" "$work/body" "$work/error"
}

verdict() {
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        printf 'ok    %s\n' "$1"
    else
        failed=$((failed + 1))
        printf 'FAIL  %s: %s\n' "$1" "$2"
    fi
}

error='^\{"error":".+"\}$'
timing='^server-timing: .*admit;dur=.*transit;dur=.*decode;dur=.*forward;dur=.*total;dur='

json=$work/request.json
printf '{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"data":["%s"]}],"outputs":[{"name":"probabilities","parameters":{"classification":1}}]}' \
    "$(base64 -w0 "$image")" >"$json"
# Bytes behind the end of an image are not looked at, so any image can be a large upload.
{ cat "$image" && head -c 20M /dev/zero; } >"$work/large"
truncate -s 100M "$work/huge"
head -c 20M /dev/zero >"$work/zeros"
head -c $(($(stat -c %s "$image") / 2)) "$image" >"$work/truncated"

for protocol in --http1.1 --http2; do
    with_key $protocol "$url/v2/health/ready"
    is "ready over ${protocol#--}" 200 '"ready":true'
    verdict "${protocol#--} is what was spoken" "$([ "--http$version" = "$protocol" ] || echo "http/$version")"
    with_key $protocol --json "@$json" "$infer"
    is "an image in JSON over ${protocol#--}" 200 "\"[0-9.e-]+:[0-9]+:$class\"" "$timing"
    with_key $protocol --header 'content-type: image/png' --data-binary "@$work/large" "$infer"
    is "an image of 20 MB over ${protocol#--}" 200 '"model_name"' "$timing"
    with_key $protocol --header 'content-type: image/png' --data-binary "@$work/zeros" "$infer"
    is "20 MB that are no image over ${protocol#--}" 400 "$error"
    with_key $protocol --request POST --upload-file "$work/huge" "$infer"
    is "a body of 100 MB over ${protocol#--}" 413 "$error"
    with_key $protocol --data-binary "@$work/truncated" "$url/photo"
    is "half an image over ${protocol#--}" 400 "$error"
done

with_key --http1.1 --header 'transfer-encoding: chunked' --data-binary "@$image" "$url/photo"
is 'an image in chunks' 200 "Class = $class, Confidence = "
with_key "$url/"
is 'the photo dialect greets' 200 '^Request:'
with_key --tls-max 1.2 "$url/v2"
is 'TLS 1.2' 200 '"name"'
with_key --tlsv1.3 "$url/v2"
is 'TLS 1.3' 200 '"name"'
with_key --head "$url/v2"
is 'HEAD' 200

ask "$url/v2"
is 'no key' 401 "$error" '^www-authenticate: bearer'
ask --header 'authorization: Bearer wrong' "$url/v2"
is 'a wrong key' 401 "$error"
ask --header "x-api-key: $key" "$url/v2"
is 'a key in x-api-key' 200 '"name"'
with_key "$url/v2/models/no-such-model"
is 'an unknown model' 404 'no-such-model'
with_key --json "@$json" "$url/v2/models/no-such-model/infer"
is 'a question to an unknown model' 404 "$error"
with_key "$url/nowhere"
is 'an unknown path' 404 "$error"
with_key "$url/.adit/manifest"
is 'what is between relay and agent' 404 "$error"
with_key --request DELETE "$infer"
is 'a wrong method' 405 "$error" '^allow: post'
with_key --json '{"inputs":[' "$infer"
is 'broken JSON' 400 "$error"
gzip --stdout "$json" >"$work/zipped"
with_key --header 'content-encoding: gzip' --header 'content-type: application/json' --data-binary "@$work/zipped" "$infer"
is 'a compressed body' 200 '"outputs"'
with_key --header 'content-encoding: gzip' --json "@$json" "$infer"
is 'a body that is not compressed as it says' 400 "$error"
with_key --header 'content-encoding: br' --json "@$json" "$infer"
is 'a compressed body of another kind' 415 "$error"
with_key --header 'x-request-id: my-own-id' "$url/v2"
is "a request id of the caller's" 200 '' '^x-request-id: my-own-id'

with_key "$url/v2/models/$model"
is 'what a model is' 200 '"inputs":\[\{"name":"image","datatype":"BYTES"'
with_key --request POST "$url/v2/repository/index"
is 'what models there are' 200 "\"name\":\"$model\""

answers=$(curl --silent --max-time 120 --cacert "$ca" --header "authorization: Bearer $key" --http1.1 --parallel \
    --parallel-max 8 --json "@$json" --write-out '%{http_code}\n' --output '/dev/null' "$infer?[1-200]" 2>/dev/null || true)
count=$(grep -c '^200$' <<<"$answers" || true)
verdict '200 questions over 8 connections' "$([ "$count" = 200 ] || echo "$count of 200 were answered with 200")"

status=$(curl --silent --max-time 10 --output /dev/null "$url/v2" && echo trusted || echo $?)
verdict 'nobody else trusts the certificate' "$([ "$status" = 60 ] || echo "curl said $status, not 60")"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
