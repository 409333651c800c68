#!/usr/bin/env bash
# Makes the disk image that the guest's workloads of real programs run from: Debian packages, unpacked, on ext4.
# Nothing is installed on this machine and root is not needed. The image is read-only in a guest, so that the source
# and the destination of a migration share it. Does nothing when it is there and made of the same.
#
#   benches/guest/image.sh [FILE]     FILE: $CARGO_TARGET_DIR/guest/image.ext4
#
# Exit: 0 it is there; 1 it could not be made; 2 wrong usage; 3 not Debian or Ubuntu: nothing was changed.
set -euo pipefail
script="$(realpath "$0")"
cd "$(dirname "$script")/../.."
PATH="$PATH:/usr/sbin:/sbin"

[ $# -le 1 ] || { echo "usage: benches/guest/image.sh [FILE]" >&2; exit 2; }
readonly IMAGE="${1:-${CARGO_TARGET_DIR:-target}/guest/image.ext4}"
readonly DIRECTORY="$(dirname "$IMAGE")"
readonly KEY="$IMAGE.key"

# What workloads run, and what the compiler reads: zlib's examples are the programs that it compiles.
readonly PROGRAMS=(redis-server sqlite3 gcc libc6-dev zlib1g-dev)
# Real files for a guest that has read most of its disk: executables, libraries, scripts, texts.
readonly CONTENTS=(g++ python3 perl git vim-runtime valgrind cmake)

say() { echo "image: $*" >&2; }
die() { say "$*"; exit 1; }

for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || { say "this is not Debian or Ubuntu ($tool is missing): nothing was changed"; exit 3; }
done
command -v mke2fs >/dev/null || die "mke2fs is missing: run \`make setup\`"

mkdir -p "$DIRECTORY"
work="$(mktemp -d "$DIRECTORY/image.XXXXXX")"
trap 'rm -rf "$work"' EXIT
# Packages that were downloaded outlive a failure: the next try goes on from there.
readonly PACKAGES="$DIRECTORY/packages"
mkdir -p "$PACKAGES/partial" "$work/tree"

# apt works out what the programs need on a machine that has nothing: an empty list of installed packages.
: >"$work/status"
solve() {
    # As root, apt would drop to user _apt, which may not write here; what it downloads is checked all the same.
    LC_ALL=C apt-get -qq -y -o APT::Sandbox::User=root -o Debug::NoLocking=1 -o Dir::State::status="$work/status" \
        -o Dir::Cache::archives="$(realpath "$PACKAGES")" --no-install-recommends "$@" install "${PROGRAMS[@]}" "${CONTENTS[@]}"
}
if ! solve --print-uris >"$work/uris" 2>"$work/errors"; then
    say "apt does not know the packages yet: apt-get update"
    if [ "$(id -u)" -eq 0 ]; then apt-get -qq update; else sudo apt-get -qq update; fi
    solve --print-uris >"$work/uris" || die "apt cannot provide ${PROGRAMS[*]} ${CONTENTS[*]}; nothing was lost. See its message above"
fi
key="$( { cut -d' ' -f2,3 "$work/uris" | sort; cat "$script"; } | sha256sum | cut -d' ' -f1)"
[ ! -s "$IMAGE" ] || [ "$(cat "$KEY" 2>/dev/null)" != "$key" ] || exit 0

began=$SECONDS
say "downloading $(wc -l <"$work/uris") packages, $(awk '{bytes += $3} END {printf "%.0f MB", bytes / 1e6}' "$work/uris")"
solve --download-only >&2 || die "downloading failed; what has come is kept in $PACKAGES. Run it again"

say "unpacking"
for name in bin sbin lib lib64; do
    mkdir -p "$work/tree/usr/$name"
    ln -s "usr/$name" "$work/tree/$name"
done
mkdir -p "$work"/tree/{dev,proc,run,tmp}
while read -r _ package _; do
    dpkg-deb --fsys-tarfile "$PACKAGES/$package" | tar -x --keep-directory-symlink --no-same-owner -C "$work/tree" \
        || die "$package cannot be unpacked; remove $PACKAGES and run it again"
done <"$work/uris"

say "writing the file system"
# No journal and no checksums: nobody ever writes to it. Times and identities are fixed, so that what went in decides
# what comes out. A sixteenth more than the files need is room for their inodes and directories.
mib=$(($(du -sm --apparent-size "$work/tree" | cut -f1) * 17 / 16 + 32))
inodes=$(($(find "$work/tree" | wc -l) + 512))
truncate -s "${mib}M" "$work/image"
E2FSPROGS_FAKE_TIME=1 mke2fs -q -t ext4 -b 4096 -m 0 -N "$inodes" -O ^has_journal,^metadata_csum,^64bit,^resize_inode \
    -U 4e6f7661-4372-6f6e-4775-657374496d67 -E root_owner=0:0,hash_seed=4e6f7661-4372-6f6e-4775-657374496d67 \
    -d "$work/tree" "$work/image"
mv "$work/image" "$IMAGE"
echo "$key" >"$KEY"
rm -rf "$PACKAGES"
say "$IMAGE: $(du -m "$IMAGE" | cut -f1) MiB, made in $((SECONDS - began)) s"
