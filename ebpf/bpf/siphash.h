/* SPDX-License-Identifier: Apache-2.0
 *
 * SipHash-2-4 (Aumasson and Bernstein, 2012) over the first 56 bytes of a probe: seven words and the length.
 */
#ifndef NOVACRON_SIPHASH_H
#define NOVACRON_SIPHASH_H

#include <linux/types.h>

#define SIP_WORDS 7

#define SIP_ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SIP_ROUND                                                                      \
	do {                                                                           \
		v0 += v1; v1 = SIP_ROTL(v1, 13); v1 ^= v0; v0 = SIP_ROTL(v0, 32);      \
		v2 += v3; v3 = SIP_ROTL(v3, 16); v3 ^= v2;                             \
		v0 += v3; v3 = SIP_ROTL(v3, 21); v3 ^= v0;                             \
		v2 += v1; v1 = SIP_ROTL(v1, 17); v1 ^= v2; v2 = SIP_ROTL(v2, 32);      \
	} while (0)

static __always_inline __u64 siphash(const __u64 *key, const __u64 *words)
{
	__u64 v0 = 0x736f6d6570736575ULL ^ key[0];
	__u64 v1 = 0x646f72616e646f6dULL ^ key[1];
	__u64 v2 = 0x6c7967656e657261ULL ^ key[0];
	__u64 v3 = 0x7465646279746573ULL ^ key[1];
	__u64 word;

#pragma unroll
	for (int i = 0; i < SIP_WORDS; i++) {
		word = words[i];
		v3 ^= word;
		SIP_ROUND;
		SIP_ROUND;
		v0 ^= word;
	}
	word = (__u64)(8 * SIP_WORDS) << 56;
	v3 ^= word;
	SIP_ROUND;
	SIP_ROUND;
	v0 ^= word;
	v2 ^= 0xff;
	SIP_ROUND;
	SIP_ROUND;
	SIP_ROUND;
	SIP_ROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

#endif
