#!/usr/bin/env bash
# Checks the alert rules and the dashboard: the rules' own tests, every metric that a query names against a control process,
# and every query in a real Prometheus that has scraped it.
#
#   control/monitoring/check.sh PROGRAMS      control/monitoring/check.sh target/release
#
# Uses loopback and a temporary folder. Where Prometheus is not installed or novacron-control is not built, it says what it
# leaves out. Exit: 0 all that ran passed; 1 one failed; 2 wrong usage.
set -euo pipefail

[ $# -eq 1 ] && [ -d "$1" ] || { echo "usage: control/monitoring/check.sh PROGRAMS" >&2; exit 2; }
programs="$(realpath "$1")"
cd "$(dirname "$0")"
work="$(mktemp -d /tmp/novacron-monitoring.XXXXXX)"
pids=()
finish() {
    [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT

ok() { echo "ok: $*"; }
left_out() { echo "left out: $*"; exit 0; }
fail() { echo "FAILED: $*" >&2; exit 1; }
for tool in promtool prometheus curl jq; do
    command -v "$tool" >/dev/null || left_out "$tool is not installed (benches/install.sh --tests does that)"
done

# ---- by themselves ------------------------------------------------------------------------------------------

promtool check rules rules.yaml >/dev/null || fail "rules.yaml"
promtool test rules rules.test.yaml >/dev/null || fail "rules.test.yaml"
ok "every rule fires in its test, and none on a node that works"

jq -r '.panels[].targets[].expr' dashboard.json | sed 's/\$instance/.*/g' >"$work/queries"
[ "$(wc -l <"$work/queries")" -ge 10 ] || fail "dashboard.json holds next to no queries"
sed -n 's/^ *expr: //p' rules.yaml >>"$work/queries"
# Names in the variable that chooses nodes, too.
{ cat "$work/queries"; jq -r '.templating.list[].query' dashboard.json; } \
    | grep -oE '\bnovacron_[a-z0-9_]+' | sort -u >"$work/asked"

# ---- against the control process ------------------------------------------------------------------------------

for program in novacron-control novacron-gateway; do
    [ -x "$programs/$program" ] || left_out "$programs/$program is not built: names and queries are not compared"
done
# Ports of loopback that were free a moment ago.
free_port() { local port; for _ in $(seq 50); do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
done; fail "no free port"; }
metrics="$(free_port)"; health="$(free_port)"; web="$(free_port)"
"$programs/novacron-control" --data-dir "$work/data" --set "system.control_socket=$work/control.sock" \
    --set "dwcp.gateway_socket=$work/gateway.sock" --set "dwcp.gateway_program=$programs/novacron-gateway" \
    --set network.enable_tls=false --set security.enable_encryption=false \
    --set "monitoring.metrics_port=$metrics" --set "system.health_check_port=$health" 2>"$work/control.log" >&2 &
pids+=($!)
scraped="http://127.0.0.1:$metrics/metrics"
for _ in $(seq 300); do
    # A gauge that is above 0 once it is ready.
    ! curl -sf "$scraped" 2>/dev/null | grep -qE '^novacron_bootstrap_ready_seconds (0*[1-9]|0\.)' || break
    kill -0 "${pids[0]}" 2>/dev/null || { tail -n 3 "$work/control.log" >&2; fail "the control process ended"; }
    sleep 0.2
done
curl -sf "$scraped" >"$work/metrics" || fail "$scraped does not answer"

# Families that have counted nothing yet are not shown: those names come from where they are registered.
sed -n 's/^# TYPE \([a-z0-9_]*\) counter$/\1_total/p; s/^# TYPE \([a-z0-9_]*\) gauge$/\1/p
    s/^# TYPE \([a-z0-9_]*\) histogram$/\1_bucket/p' "$work/metrics" >"$work/shown"
[ "$(wc -l <"$work/shown")" -ge 5 ] || fail "the control process shows next to no metrics"
cat ../daemon/src/metrics.rs ../daemon/src/metrics/*.rs | tr -d '\n' | grep -oE 'register\( *"[a-z0-9_]+"' | sed 's/.*"\(.*\)"/novacron_\1/' >"$work/registered"
sort -u "$work/shown" "$work/registered" <(sed 's/$/_total/' "$work/registered") >"$work/known"
unknown="$(comm -23 "$work/asked" "$work/known" | tr '\n' ' ')"
[ -z "$unknown" ] || fail "queries name metrics that do not exist: $unknown"
ok "the $(wc -l <"$work/asked") metrics that queries name exist"

# ---- in Prometheus --------------------------------------------------------------------------------------------

cp rules.yaml "$work/rules.yaml"
cat >"$work/prometheus.yaml" <<CONFIG
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [rules.yaml]
scrape_configs:
  - job_name: novacron
    static_configs: [{ targets: ["127.0.0.1:$metrics"] }]
CONFIG
prometheus --config.file="$work/prometheus.yaml" --storage.tsdb.path="$work/tsdb" --log.level=error \
    --web.listen-address="127.0.0.1:$web" 2>"$work/prometheus.log" >&2 &
pids+=($!)
ask() { curl -sf --get "http://127.0.0.1:$web/api/v1/query" --data-urlencode "query=$1"; }
up=0
for _ in $(seq 300); do
    up="$(ask 'up{job="novacron"}' 2>/dev/null | jq -r '.data.result[0].value[1] // 0' || echo 0)"
    [ "$up" != 1 ] || break
    sleep 0.2
done
[ "$up" = 1 ] || { cat "$work/prometheus.log" >&2; fail "Prometheus could not scrape the control process"; }
while read -r query; do
    ask "$query" | jq -e '.status == "success"' >/dev/null || fail "Prometheus refuses: $query"
done <"$work/queries"
states="$(ask 'count(novacron_component_state == 1)' | jq -r '.data.result[0].value[1] // 0')"
[ "$states" -ge 5 ] || fail "Prometheus knows $states components"
for _ in $(seq 100); do
    rules="$(curl -sf "http://127.0.0.1:$web/api/v1/rules" | jq -r '[.data.groups[].rules[].health] | unique | join(" ")')"
    [ "$rules" != ok ] || break
    sleep 0.2
done
[ "$rules" = ok ] || fail "rules are $rules"
ok "Prometheus scraped it, knows $states components, and evaluates all $(wc -l <"$work/queries") queries"
