#!/usr/bin/env bash
# Checks the package as far as a machine without a running systemd can: what it holds, its scripts and units, and the
# installed gateway, run as its own user with what the unit takes from it.
#
#   image/deb/check.sh PACKAGE
#
# As root in namespaces and folders of its own; installs nothing on this machine. Without root, or without a tool, it says
# which checks were left out and why. Exit: 0 all that ran passed; 1 one failed; 2 wrong usage.
set -euo pipefail

[ $# -eq 1 ] && [ -f "$1" ] || { echo "usage: image/deb/check.sh PACKAGE" >&2; exit 2; }
package="$(realpath "$1")"
work="$(mktemp -d /tmp/novacron-deb.XXXXXX)"
# The gateway's user must reach what is unpacked.
chmod 0755 "$work"
gateway_pid=""
finish() {
    [ -z "$gateway_pid" ] || kill "$gateway_pid" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
root="$work/root"
units="$root/lib/systemd/system"
unit="$units/novacron-gateway.service"

ok() { echo "ok: $*"; }
left_out() { echo "left out: $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

# ---- what it holds ------------------------------------------------------------------------------------------

dpkg-deb -I "$package" >"$work/info"
dpkg-deb -c "$package" >"$work/contents"
dpkg-deb -x "$package" "$root"
dpkg-deb -e "$package" "$work/DEBIAN"

! awk '$2 != "root/root"' "$work/contents" | grep . || fail "not everything is root's"
# Neither setuid nor sticky, writable by nobody but its owner.
! awk '$1 ~ /[sStT]/ || substr($1, 6, 1) == "w" || substr($1, 9, 1) == "w"' "$work/contents" | grep . || fail "modes"
! grep -rIlE 'BEGIN [A-Z ]*PRIVATE KEY' "$root/etc" "$root/usr/share" || fail "a private key"
! grep -E '\.(key|pem|crt)$' "$work/contents" || fail "keys or certificates"
while read -r file; do [ -f "$root$file" ] || fail "conffile $file is not there"; done <"$work/DEBIAN/conffiles"
(cd "$root" && md5sum --quiet -c "$work/DEBIAN/md5sums") || fail "md5sums"
for field in Package Version Architecture Maintainer Depends Description; do
    grep -q "^ $field: ." "$work/info" || fail "no field $field"
done
ok "contents: owners, modes, no keys, conffiles, checksums, fields"

for script in postinst prerm postrm; do
    [ -x "$work/DEBIAN/$script" ] || fail "$script is not executable"
    sh -n "$work/DEBIAN/$script" || fail "$script"
    ! grep -nE 'openssl|novactl keys (init|issue)[^,;"]*$|/dev/u?random|passw' "$work/DEBIAN/$script" || fail "$script makes secrets"
done
ok "scripts parse and make no secret"

for program in $(ls "$root/usr/bin"); do
    "$root/usr/bin/$program" --version >/dev/null || fail "$program does not run"
    # Every library that is missing from Depends would show on a machine that has less than this one.
    ldd "$root/usr/bin/$program" | awk '/=> not found/ { missing = 1 } END { exit missing }' || fail "$program lacks libraries"
done
ok "programs run"

if command -v lintian >/dev/null; then
    # No section of a manual, no changelog of Debian's form: told of and known.
    lintian --fail-on error --suppress-tags no-manual-page,statically-linked-binary "$package" || fail "lintian"
    ok "lintian finds no error"
else
    left_out "lintian is not installed"
fi

# ---- units --------------------------------------------------------------------------------------------------

if command -v systemd-analyze >/dev/null; then
    for each in "$units"/*.service; do
        name="$(basename "$each")"
        # The unit's programs stand in $root, so it is verified with their paths there.
        sed "s|=/usr/bin/|=$root/usr/bin/|" "$each" >"$work/$name"
        SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$work/$name" 2>"$work/verify" || {
            cat "$work/verify" >&2; fail "systemd-analyze verify"; }
        ! grep novacron "$work/verify" || fail "systemd-analyze verify warns"
        # By systemd's own count from 0 (safe) to 10; the threshold is in tenths.
        systemd-analyze security --no-pager --offline=true --threshold=25 "$each" >"$work/security" || {
            cat "$work/security" >&2; fail "systemd-analyze security"; }
        ok "unit: verified; $(grep -oE 'Overall.*' "$work/security")"
    done
else
    left_out "systemd-analyze is not installed"
fi

# ---- users, folders, and the gateway as the unit runs it -----------------------------------------------------

if [ "$(id -u)" -ne 0 ]; then
    left_out "users and the run as the gateway's user: this is not root"
    exit 0
fi
for tool in unshare setpriv prlimit systemd-sysusers systemd-tmpfiles; do
    command -v "$tool" >/dev/null || { left_out "users and the run as the gateway's user: $tool is not installed"; exit 0; }
done

touch "$root/etc/passwd" "$root/etc/group"
systemd-sysusers --root="$root" >/dev/null
systemd-tmpfiles --root="$root" --create novacron.conf
grep -q '^novacron:' "$root/etc/passwd" || fail "sysusers made no user"
[ "$(stat -c %a "$root/etc/novacron/identity")" = 750 ] || fail "the identity folder's mode"
user="$(awk -F: '$1 == "novacron" { print $3 }' "$root/etc/passwd")"
group="$(awk -F: '$1 == "novacron" { print $3 }' "$root/etc/group")"
[ -n "$user" ] && [ -n "$group" ] && [ "$user" -ne 0 ] || fail "user $user, group $group"
ok "users and folders"

# An identity as an operator makes it.
identity="$root/etc/novacron/identity"
(umask 077
"$root/usr/bin/novactl" keys init site-a --keys "$work/keys" >/dev/null
"$root/usr/bin/novactl" keys issue gateway/gw-1 --keys "$work/keys" --identity "$identity" >/dev/null)
[ -e "$identity/peers.toml" ] || : >"$identity/peers.toml"
find "$identity" -type f ! -name gateway.key -exec chmod 0640 {} + -exec chgrp "$group" {} +
chmod 0600 "$identity/gateway.key"

# What systemd would make: folders of the service, and the key as a credential.
run="$work/run"; state="$work/state"; credentials="$work/credentials"
install -d -m 0750 -o "$user" -g "$group" "$run"
install -d -m 0700 -o "$user" -g "$group" "$state"
install -d -m 0500 -o "$user" -g "$group" "$credentials"
install -m 0400 -o "$user" -g "$group" "$identity/gateway.key" "$credentials/gateway.key"
command="$(sed -n 's/^ExecStart=//p' "$unit" | sed "s|/usr/bin/|$root/usr/bin/|; s|/run/novacron-gateway|$run|
    s|/etc/novacron|$root/etc/novacron|; s|/var/lib/novacron-gateway|$state|; s|\$NOVACRON_GATEWAY_OPTIONS|--listen tcp:127.0.0.1:0|")"

limits=(--core=0:0)
for limit in --memlock=unlimited:unlimited --nofile=65536:65536; do
    if prlimit "$limit" true 2>/dev/null; then
        limits+=("$limit")
    else
        left_out "the unit's limit $limit: this machine's root may not raise it"
    fi
done

# ProtectSystem=strict: all of the file system read-only but the service's own folders; its user, no capability, no way to
# get one, its limits.
confined() {
    cat >"$work/start" <<START
set -e
mount --make-rprivate /
for folder in "$run" "$state"; do mount --bind "\$folder" "\$folder"; done
mount -o remount,bind,ro /
umask 0007
exec prlimit ${limits[*]} \\
    setpriv --reuid=$user --regid=$group --clear-groups --no-new-privs --inh-caps=-all --ambient-caps=-all \\
    --bounding-set=-all --pdeathsig=TERM -- env -i CREDENTIALS_DIRECTORY="$credentials" PATH=/usr/bin:/bin $1
START
    exec unshare --mount sh "$work/start"
}
confined "$command" 2>"$work/gateway.log" &
gateway_pid=$!
for _ in $(seq 300); do
    [ ! -S "$run/control.sock" ] || break
    kill -0 "$gateway_pid" 2>/dev/null || { cat "$work/gateway.log" >&2; fail "the gateway ended"; }
    sleep 0.1
done
[ -S "$run/control.sock" ] || { cat "$work/gateway.log" >&2; fail "no control socket after 30 s"; }

unprivileged() {
    local set
    [ "$(status Uid)" = "$user" ] || fail "it runs as $(status Uid)"
    [ "$(status NoNewPrivs)" = 1 ] || fail "it may gain privileges"
    for set in CapInh CapPrm CapEff CapBnd CapAmb; do
        [ "$(status $set)" = 0000000000000000 ] || fail "$set is $(status $set)"
    done
}
status() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$gateway_pid/status"; }
unprivileged
[ "$(stat -c %a "$run/control.sock")" = 600 ] || fail "the control socket's mode"
setpriv --reuid="$user" --regid="$group" --clear-groups "$root/usr/bin/novactl" info --gateway "$run/control.sock" --json \
    >"$work/answer" || fail "its own user cannot ask it"
! setpriv --reuid=65534 --regid=65534 --clear-groups "$root/usr/bin/novactl" info --gateway "$run/control.sock" \
    >/dev/null 2>&1 || fail "anybody can ask it"
! nsenter --target "$gateway_pid" --mount setpriv --reuid="$user" --regid="$group" --clear-groups \
    sh -c ": >'$root/etc/novacron/x'" 2>/dev/null || fail "it can write into /etc/novacron"
! setpriv --reuid="$user" --regid="$group" --clear-groups cat "$identity/gateway.key" >/dev/null 2>&1 \
    || fail "it can read the key in the identity folder, not only the credential"
[[ " ${limits[*]} " != *memlock* ]] || ! grep -q 'memory of guests may reach swap' "$work/gateway.log" || fail "its memory is not locked"
ok "the gateway runs as its user, without capabilities, on a read-only system, with the key as a credential"

kill -TERM "$gateway_pid"
rc=0; wait "$gateway_pid" || rc=$?
gateway_pid=""
[ "$rc" -eq 0 ] || { cat "$work/gateway.log" >&2; fail "it ended with $rc"; }
ok "it ends by SIGTERM"

# ---- the control process, which starts a gateway of its own --------------------------------------------------

if [ -x "$root/usr/bin/novacron-control" ]; then
    command="$(sed -n 's/^ExecStart=//p' "$units/novacron-control.service" \
        | sed "s|/usr/bin/|$root/usr/bin/|; s|/etc/novacron|$root/etc/novacron|")"
    command+=" --data-dir $state --set system.control_socket=$run/node.sock --set dwcp.gateway_socket=$run/gateway.sock"
    command+=" --set security.identity_dir=$identity --set system.health_check_port=0 --set monitoring.metrics_port=0"
    command+=" --set network.bind_port=0"
    chmod 0644 "$root/etc/novacron/novacron.yaml"
    confined "$command" 2>"$work/control.log" >&2 &
    gateway_pid=$!
    for _ in $(seq 300); do
        [ ! -S "$run/node.sock" ] || break
        kill -0 "$gateway_pid" 2>/dev/null || { cat "$work/control.log" >&2; fail "the control process ended"; }
        sleep 0.1
    done
    [ -S "$run/node.sock" ] || { cat "$work/control.log" >&2; fail "no control socket after 30 s"; }
    unprivileged
    setpriv --reuid="$user" --regid="$group" --clear-groups "$root/usr/bin/novactl" info --gateway "$run/gateway.sock" \
        >/dev/null || fail "its gateway does not answer"
    setpriv --reuid="$user" --regid="$group" --clear-groups "$root/usr/bin/novactl" audit verify --control "$run/node.sock" \
        >/dev/null || fail "its audit log is not whole"
    [ "$(stat -c %a "$state/store.sqlite")" = 600 ] || fail "the database's mode"
    kill -TERM "$gateway_pid"
    rc=0; wait "$gateway_pid" || rc=$?
    gateway_pid=""
    [ "$rc" -eq 0 ] || { cat "$work/control.log" >&2; fail "the control process ended with $rc"; }
    ok "the control process runs so as well, with its gateway and its database, and ends by SIGTERM"
fi

# ---- its system calls against the unit's filter ---------------------------------------------------------------

command -v strace >/dev/null && command -v systemd-analyze >/dev/null || {
    left_out "the unit's system call filter: strace or systemd-analyze is not installed"
    exit 0
}
expand() {
    local name
    for name in "$@"; do
        case "$name" in
            @*) expand $(systemd-analyze syscall-filter "$name" | sed '1d; s/^ *//; /^#/d') ;;
            *) echo "$name" ;;
        esac
    done
}
# What a unit's filter allows, as systemd reads its lines: in order, what a line names is added or, behind a tilde, taken away.
allowed() {
    expand @default | sort -u >"$work/allowed"
    sed -n 's/^SystemCallFilter=//p' "$1" >"$work/lines"
    while read -r line; do
        # shellcheck disable=SC2046,SC2086 # the lists are to be split
        expand ${line#\~} | sort -u >"$work/named"
        case "$line" in
            \~*) comm -23 "$work/allowed" "$work/named" >"$work/next" ;;
            *) sort -u "$work/allowed" "$work/named" >"$work/next" ;;
        esac
        mv "$work/next" "$work/allowed"
    done <"$work/lines"
    [ "$(wc -l <"$work/allowed")" -gt 200 ] || fail "the filter of $1 could not be read"
}
# Runs a program to its end under strace, as the unit's user: root is asked for more. Once its socket is there and it has
# answered a question, it is ended, and what it called is compared.
#   compare UNIT SOCKET "QUESTION" PROGRAM...
compare() {
    local filter="$1" socket="$2" question="$3" strace_pid missing
    shift 3
    allowed "$filter"
    "${as_user[@]}" strace -f -qq -o "$traced/trace" "$@" 2>"$work/traced.log" &
    strace_pid=$!
    for _ in $(seq 300); do [ ! -S "$socket" ] || break; sleep 0.1; done
    gateway_pid="$(tr -d ' ' <"/proc/$strace_pid/task/$strace_pid/children")"
    # shellcheck disable=SC2086 # its words
    "${as_user[@]}" "$root/usr/bin/novactl" $question "$socket" >/dev/null || { cat "$work/traced.log" >&2; fail "the traced $1 does not answer"; }
    kill -HUP "$gateway_pid"
    sleep 0.5
    kill -TERM "$gateway_pid"
    wait "$strace_pid" || true
    gateway_pid=""
    sed -E 's/^[0-9]+ +(<\.\.\. )?//' "$traced/trace" | sed -nE 's/^([a-z][a-z0-9_]+)[( ].*/\1/p' | sort -u >"$work/used"
    [ "$(wc -l <"$work/used")" -gt 30 ] || fail "strace saw next to nothing"
    missing="$(comm -23 "$work/used" "$work/allowed" | tr '\n' ' ')"
    [ -z "$missing" ] || fail "the filter of $(basename "$filter") refuses what $(basename "$1") calls: $missing"
    ok "the $(wc -l <"$work/used") system calls of $(basename "$1") from start to end are in the unit's filter"
}
traced="$work/traced"
install -d -m 0700 -o "$user" -g "$group" "$traced" "$traced/data"
as_user=(setpriv "--reuid=$user" "--regid=$group" --clear-groups)
compare "$unit" "$traced/traced.sock" "sessions --gateway" "$root/usr/bin/novacron-gateway" --control "$traced/traced.sock" \
    --insecure-plaintext --listen tcp:127.0.0.1:0 --records "$traced/records.jsonl"
if [ -x "$root/usr/bin/novacron-control" ]; then
    compare "$units/novacron-control.service" "$traced/node.sock" "audit verify --control" "$root/usr/bin/novacron-control" \
        --config "$root/etc/novacron/novacron.yaml" --data-dir "$traced/data" \
        --set system.control_socket="$traced/node.sock" --set dwcp.gateway_socket="$traced/gateway.sock" \
        --set dwcp.gateway_program="$root/usr/bin/novacron-gateway" --set security.enable_encryption=false --set network.enable_tls=false \
        --set system.health_check_port=0 --set monitoring.metrics_port=0 --set network.bind_port=0
fi
