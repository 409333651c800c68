// SPDX-License-Identifier: Apache-2.0
//
// The probe responder (docs/spec/probe.md): answers probes of known peers on the network interface, before the stack sees
// them. What is not a probe goes on to the stack untouched; a probe that is not as it must be is dropped and counted.
// dataplane/protocol/src/probe/{frame,responder}.rs does the same in userspace; the fixtures of ebpf/tests compare both.

#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#include "probe.h"
#include "siphash.h"
#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>

char LICENSE[] SEC("license") = "Apache-2.0";

// Set by the loader before the program is loaded; both in network order.
const volatile __u16 probe_port = 0;
// All zero: any of the host's.
const volatile __u32 local_address[4] = {0, 0, 0, 0};
// 2 generic XDP, 3 driver XDP.
const volatile __u8 measured_by = 0;

// Both are shared memory of the loader, which may no longer call bpf(2) when it has confined itself.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PEER_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct probe_peer);
} peers SEC(".maps");

// An entry a processor; the loader sets how many there are.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct probe_counters);
} counters SEC(".maps");

// Apart from the peers: what holds a lock cannot be shared memory.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PEER_SLOTS);
	__type(key, __u32);
	__type(value, struct probe_state);
} states SEC(".maps");

struct vlan_tag {
	__be16 tci;
	__be16 proto;
};

// IPv6's fragment header (RFC 8200, 4.5).
struct fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

static __always_inline int count(enum probe_count kind)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct probe_counters *own = bpf_map_lookup_elem(&counters, &cpu);

	if (own)
		own->count[kind]++;
	return kind == COUNT_ANSWERED ? XDP_TX : XDP_DROP;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

// RFC 1624: a header checksum after one 16-bit word changed.
static __always_inline __u16 changed(__u16 check, __u16 from, __u16 to)
{
	__u32 sum = (__u16)~check + (__u32)(__u16)~from + to;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline bool is_local(const __u32 *address)
{
	__u32 any = local_address[0] | local_address[1] | local_address[2] | local_address[3];

	if (!any)
		return true;
	return address[0] == local_address[0] && address[1] == local_address[1] && address[2] == local_address[2] &&
	       address[3] == local_address[3];
}

// Whether the peer may have one more answer, and how many single probes it has sent so far.
static __always_inline enum probe_count admit(struct probe_state *state, const struct probe_header *probe, __u64 now,
					      __u64 *heard)
{
	enum probe_count said = COUNT_ANSWERED;
	__u64 tag = probe->tag, sequence = probe->sequence, single = probe->train == 0;

	bpf_spin_lock(&state->lock);
	if (state->tag != tag) {
		// The place belonged to another peer.
		state->tag = tag;
		state->highest = 0;
		state->heard = 0;
		state->due_ns = 0;
		for (int i = 0; i < REPLAY_WORDS; i++)
			state->seen[i] = 0;
	}
	__u64 highest = state->highest;
	__u64 word = sequence >> 6, bit = 1ULL << (sequence & 63);
	__u64 due = state->due_ns < now ? now : state->due_ns;

	if (sequence <= highest && (highest - sequence >= REPLAY_BITS - 64 || state->seen[word & (REPLAY_WORDS - 1)] & bit)) {
		said = COUNT_REPLAYED;
	} else if (due - now > RATE_BURST_NS) {
		said = COUNT_RATE_LIMITED;
	} else {
		state->due_ns = due + RATE_COST_NS;
		if (sequence > highest) {
			__u64 ahead = word - (highest >> 6);

			for (int i = 0; i < REPLAY_WORDS; i++)
				if (i < ahead)
					state->seen[((highest >> 6) + 1 + i) & (REPLAY_WORDS - 1)] = 0;
			state->highest = sequence;
		}
		state->seen[word & (REPLAY_WORDS - 1)] |= bit;
		state->heard += single;
		*heard = state->heard;
	}
	bpf_spin_unlock(&state->lock);
	return said;
}

// Where the peer with this tag stands; PEER_SLOTS: nowhere.
static __always_inline __u32 find(__u64 tag, struct probe_peer **found)
{
	if (tag == 0)
		return PEER_SLOTS;
	for (__u32 i = 0; i < PEER_REACH; i++) {
		__u32 slot = (tag + i) % PEER_SLOTS;
		struct probe_peer *peer = bpf_map_lookup_elem(&peers, &slot);

		if (peer && peer->tag == tag) {
			*found = peer;
			return slot;
		}
	}
	return PEER_SLOTS;
}

SEC("xdp")
int probe_responder(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	void *cursor = eth + 1;
	struct iphdr *ip4 = 0;
	struct ipv6hdr *ip6 = 0;
	struct udphdr *udp;
	__u32 source[4] = {0, 0, bpf_htonl(0xffff), 0}, destination[4] = {0, 0, bpf_htonl(0xffff), 0};
	__u32 carried; // bytes that the IP header says follow it
	bool fragmented = false;

	if (cursor > end || eth->h_dest[0] & 1)
		return XDP_PASS;
	__be16 proto = eth->h_proto;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD)) {
			struct vlan_tag *tag = cursor;

			if ((void *)(tag + 1) > end)
				return XDP_PASS;
			proto = tag->proto;
			cursor = tag + 1;
		}
	}
	if (proto == bpf_htons(ETH_P_IP)) {
		ip4 = cursor;
		if ((void *)(ip4 + 1) > end || ip4->version != 4 || ip4->ihl < 5 || ip4->protocol != IPPROTO_UDP)
			return XDP_PASS;
		__u32 header = ip4->ihl * 4, total = bpf_ntohs(ip4->tot_len);

		if (ip4->frag_off & bpf_htons(0x1fff))
			return XDP_PASS; // a later fragment has no ports; its first one is dropped below
		fragmented = ip4->frag_off & bpf_htons(0x2000);
		carried = total > header ? total - header : 0;
		source[3] = ip4->saddr;
		destination[3] = ip4->daddr;
		udp = cursor + header;
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		ip6 = cursor;
		if ((void *)(ip6 + 1) > end || ip6->version != 6)
			return XDP_PASS;
		carried = bpf_ntohs(ip6->payload_len);
		__builtin_memcpy(source, &ip6->saddr, 16);
		__builtin_memcpy(destination, &ip6->daddr, 16);
		udp = (void *)(ip6 + 1);
		if (ip6->nexthdr == IPPROTO_FRAGMENT) {
			struct fragment *fragment = (void *)(ip6 + 1);

			if ((void *)(fragment + 1) > end || fragment->next != IPPROTO_UDP ||
			    fragment->offset & bpf_htons(0xfff8))
				return XDP_PASS;
			fragmented = true;
			udp = (void *)(fragment + 1);
		} else if (ip6->nexthdr != IPPROTO_UDP) {
			return XDP_PASS;
		}
	} else {
		return XDP_PASS;
	}
	if ((void *)(udp + 1) > end || udp->dest != probe_port || !is_local(destination))
		return XDP_PASS;

	// From here on it is for the responder: answered, or dropped and counted.
	if (fragmented)
		return count(COUNT_FRAGMENTED);
	__u32 datagram = bpf_ntohs(udp->len);

	if (datagram < sizeof(*udp) + PROBE_HEADER_BYTES)
		return count(COUNT_TRUNCATED);
	if (datagram > sizeof(*udp) + PROBE_BYTES_MAX)
		return count(COUNT_OVERSIZE);
	struct probe_header *probe = (void *)(udp + 1);

	if (carried < datagram || (void *)udp + datagram > end || (void *)(probe + 1) > end)
		return count(COUNT_TRUNCATED);
	if (probe->magic != PROBE_MAGIC || probe->kind != PROBE_KIND_PROBE || probe->measured_by || probe->received_ns ||
	    probe->heard)
		return count(COUNT_MALFORMED);
	if (probe->length != datagram - sizeof(*udp))
		return count(COUNT_TRUNCATED);

	struct probe_peer *peer = 0;
	__u32 slot = find(probe->tag, &peer);

	if (slot == PEER_SLOTS || !peer)
		return count(COUNT_UNKNOWN_PEER);
	__u32 *from = (__u32 *)peer->address;

	if (from[0] != source[0] || from[1] != source[1] || from[2] != source[2] || from[3] != source[3])
		return count(COUNT_UNKNOWN_PEER);
	__u32 turn = probe->epoch % PEER_EPOCHS;

	if (probe->epoch == 0 || peer->epoch[turn] != probe->epoch)
		return count(COUNT_BAD_COOKIE);
	struct probe_keys *keys = &peer->keys[turn];
	// A copy, so that what was checked is what is answered.
	struct probe_header header;

	__builtin_memcpy(&header, probe, sizeof(header));
	if (siphash(keys->probe, (__u64 *)&header) != header.mac)
		return count(COUNT_BAD_COOKIE);

	struct probe_state *state = bpf_map_lookup_elem(&states, &slot);

	if (!state)
		return count(COUNT_UNKNOWN_PEER);
	__u64 now = bpf_ktime_get_ns();
	enum probe_count said = admit(state, &header, now, &header.heard);

	if (said != COUNT_ANSWERED)
		return count(said);

	header.kind = PROBE_KIND_ANSWER;
	header.measured_by = measured_by;
	header.received_ns = now;
	header.mac = siphash(keys->answer, (__u64 *)&header);
	__builtin_memcpy(probe, &header, sizeof(header));

	__u8 hardware[ETH_ALEN];

	__builtin_memcpy(hardware, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, hardware, ETH_ALEN);
	__u16 length = sizeof(*udp) + PROBE_HEADER_BYTES;
	__be16 port = udp->source;

	udp->source = udp->dest;
	udp->dest = port;
	udp->len = bpf_htons(length);
	udp->check = 0;
	// The pseudo-header's length and protocol, then its addresses.
	__u64 sum = (__u64)bpf_htons(length) + bpf_htons(IPPROTO_UDP);

	if (ip4) {
		__u16 total = bpf_htons(ip4->ihl * 4 + length);
		__u16 hops = *(__u16 *)&ip4->ttl;

		ip4->check = changed(ip4->check, ip4->tot_len, total);
		ip4->tot_len = total;
		ip4->ttl = 64;
		ip4->check = changed(ip4->check, hops, *(__u16 *)&ip4->ttl);
		ip4->saddr = destination[3];
		ip4->daddr = source[3];
		sum = bpf_csum_diff(0, 0, (__be32 *)&ip4->saddr, 8, sum);
	} else if (ip6) {
		ip6->payload_len = bpf_htons(length);
		ip6->hop_limit = 64;
		__builtin_memcpy(&ip6->saddr, destination, 16);
		__builtin_memcpy(&ip6->daddr, source, 16);
		sum = bpf_csum_diff(0, 0, (__be32 *)&ip6->saddr, 32, sum);
	}
	sum = bpf_csum_diff(0, 0, (__be32 *)udp, sizeof(*udp) + PROBE_HEADER_BYTES, sum);
	__u16 check = fold(sum);

	udp->check = check ? check : 0xffff;
	// Only now: it makes every pointer into the frame void.
	long surplus = end - (void *)udp - length;

	if (surplus < 0 || surplus > 2048 || (surplus && bpf_xdp_adjust_tail(ctx, -(int)surplus)))
		return count(COUNT_TRUNCATED);
	return count(COUNT_ANSWERED);
}
