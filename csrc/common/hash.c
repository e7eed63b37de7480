/* hash.c - see hash.h.  Word i goes to lane i % 8, so that no multiplication waits for the one before; at the end the
 * lanes are folded into one.  The last block is padded with zeros, and the length is mixed in.  Every step is a
 * bijection, so a change within one word always changes the hash. */
#include "common/hash.h"

#include <string.h>

enum { LANES = 8, BLOCK = LANES * (int)sizeof(uint64_t) };

static uint64_t mix(uint64_t h, uint64_t word) {
    h = (h ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 32;
}

static void mix_block(uint64_t *lanes, const uint8_t *block) {
    uint64_t words[LANES];
    memcpy(words, block, BLOCK);
    for (int i = 0; i < LANES; i++) lanes[i] = mix(lanes[i], words[i]);
}

uint64_t hash_bytes(const void *data, size_t n) {
    uint64_t lanes[LANES] = {1, 2, 3, 4, 5, 6, 7, 8}, h = n;
    const uint8_t *at = data;
    size_t rest = n % BLOCK;
    for (const uint8_t *end = at + (n - rest); at < end; at += BLOCK) mix_block(lanes, at);
    if (rest) {
        uint8_t last[BLOCK] = {0};
        memcpy(last, at, rest);
        mix_block(lanes, last);
    }
    for (int i = 0; i < LANES; i++) h = mix(h, lanes[i]);
    return h;
}
