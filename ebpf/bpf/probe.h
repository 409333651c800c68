/* SPDX-License-Identifier: Apache-2.0
 *
 * What the probe responder, its loader (ebpf/src/abi.rs) and the wire (docs/spec/probe.md) share. Sizes are asserted
 * on both sides. All integers are little-endian on the wire; the program is built for such machines.
 */
#ifndef NOVACRON_PROBE_H
#define NOVACRON_PROBE_H

#include <linux/bpf.h>
#include <linux/types.h>

#define PROBE_MAGIC 0x3150564eu /* "NVP1" */
#define PROBE_KIND_PROBE 1
#define PROBE_KIND_ANSWER 2

#define PROBE_HEADER_BYTES 64
#define PROBE_BYTES_MAX 1472

/* A peer's place is its tag modulo PEER_SLOTS, or one of the PEER_REACH - 1 after it. */
#define PEER_SLOTS 1024
#define PEER_REACH 16
#define PEER_EPOCHS 4

/* Replays: bits remembered. A word is cleared as a whole (RFC 6479), so one word less is usable. */
#define REPLAY_WORDS 16
#define REPLAY_BITS (64 * REPLAY_WORDS)

/* Per peer: one probe each RATE_COST_NS on average, and as many at once as fit RATE_BURST_NS (GCRA). */
#define RATE_COST_NS 100000ULL
#define RATE_BURST_NS 204800000ULL

struct probe_header {
	__u32 magic;
	__u8 kind;
	__u8 measured_by;
	__u16 length;
	__u64 tag;
	__u32 epoch;
	__u32 train;
	__u64 sequence;
	__u64 sent_ns;
	__u64 received_ns;
	__u64 heard;
	__u64 mac;
};

struct probe_keys {
	__u64 probe[2];
	__u64 answer[2];
};

/* One peer; tag 0: none. Written by userspace through shared memory, only read here. */
struct probe_peer {
	__u64 tag;
	__u8 address[16]; /* IPv6, or IPv4 mapped into it */
	__u32 epoch[PEER_EPOCHS]; /* 0: none */
	struct probe_keys keys[PEER_EPOCHS];
};

/* What the program remembers of a peer. */
struct probe_state {
	struct bpf_spin_lock lock;
	__u32 unused;
	__u64 tag;
	__u64 highest;
	__u64 heard;
	__u64 due_ns;
	__u64 seen[REPLAY_WORDS];
};

enum probe_count {
	COUNT_ANSWERED,
	COUNT_BAD_COOKIE,
	COUNT_UNKNOWN_PEER,
	COUNT_TRUNCATED,
	COUNT_FRAGMENTED,
	COUNT_RATE_LIMITED,
	COUNT_OVERSIZE,
	COUNT_REPLAYED,
	COUNT_MALFORMED,
	COUNT_KINDS,
};

/* One processor's counters: two cache lines, so that processors share none. */
struct probe_counters {
	__u64 count[16];
};

_Static_assert(sizeof(struct probe_header) == PROBE_HEADER_BYTES, "the wire");
_Static_assert(sizeof(struct probe_peer) == 168, "abi.rs");
_Static_assert(sizeof(struct probe_state) == 168, "state");
_Static_assert(sizeof(struct probe_counters) == 128, "abi.rs");
_Static_assert(COUNT_KINDS <= 16, "counters");

#endif
