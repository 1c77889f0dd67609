/**
 * XXH3-64 with seed 0 and the default secret, canonical: equal to `XXH3_64bits` and `xxhsum -H3`.
 *
 * The secret stands at a fixed address of the shared memory (CONSTANTS.offset.secret), written once
 * by `writeConstants`. It cannot be static data: the module is instantiated in every thread over
 * one memory, and each instance would write its data segments again.
 */
import { CONSTANTS_OFFSET_SECRET as SECRET } from './layout';

const SECRET_BYTES: usize = 192;
const STRIPE_BYTES: usize = 64;
/** Each stripe moves eight bytes along the secret, so 16 stripes use it up: one block. */
const BLOCK_STRIPES: usize = 16;
const BLOCK_BYTES: usize = 1024;

const PRIME32_1: u64 = 0x9e3779b1;
const PRIME32_2: u64 = 0x85ebca77;
const PRIME32_3: u64 = 0xc2b2ae3d;
const PRIME64_1: u64 = 0x9e3779b185ebca87;
const PRIME64_2: u64 = 0xc2b2ae3d27d4eb4f;
const PRIME64_3: u64 = 0x165667b19e3779f9;
const PRIME64_4: u64 = 0x85ebca77c2b2ae63;
const PRIME64_5: u64 = 0x27d4eb2f165667c5;
const PRIME_MX1: u64 = 0x165667919e3779f9;
const PRIME_MX2: u64 = 0x9fb21c651e98df25;

/** XXH3-64 of nothing. */
const EMPTY: u64 = 0x2d06800538d394c2;

export function writeConstants(): void {
  store<u64>(SECRET, 0xbe4ba423396cfeb8, 0);
  store<u64>(SECRET, 0x1cad21f72c81017c, 8);
  store<u64>(SECRET, 0xdb979083e96dd4de, 16);
  store<u64>(SECRET, 0x1f67b3b7a4a44072, 24);
  store<u64>(SECRET, 0x78e5c0cc4ee679cb, 32);
  store<u64>(SECRET, 0x2172ffcc7dd05a82, 40);
  store<u64>(SECRET, 0x8e2443f7744608b8, 48);
  store<u64>(SECRET, 0x4c263a81e69035e0, 56);
  store<u64>(SECRET, 0xcb00c391bb52283c, 64);
  store<u64>(SECRET, 0xa32e531b8b65d088, 72);
  store<u64>(SECRET, 0x4ef90da297486471, 80);
  store<u64>(SECRET, 0xd8acdea946ef1938, 88);
  store<u64>(SECRET, 0x3f349ce33f76faa8, 96);
  store<u64>(SECRET, 0x1d4f0bc7c7bbdcf9, 104);
  store<u64>(SECRET, 0x3159b4cd4be0518a, 112);
  store<u64>(SECRET, 0x647378d9c97e9fc8, 120);
  store<u64>(SECRET, 0xc3ebd33483acc5ea, 128);
  store<u64>(SECRET, 0xeb6313faffa081c5, 136);
  store<u64>(SECRET, 0x49daf0b751dd0d17, 144);
  store<u64>(SECRET, 0x9e68d429265516d3, 152);
  store<u64>(SECRET, 0xfca1477d58be162b, 160);
  store<u64>(SECRET, 0xce31d07ad1b8f88f, 168);
  store<u64>(SECRET, 0x280416958f3acb45, 176);
  store<u64>(SECRET, 0x7e404bbbcafbd7af, 184);
}

export function hash(input: usize, length: usize): u64 {
  if (length <= 16) return hashTo16(input, length);
  if (length <= 128) return hashTo128(input, length);
  if (length <= 240) return hashTo240(input, length);
  return hashLong(input, length);
}

/** Hash of the 48 bytes that are the 40 at `input` and `last`, without writing them anywhere. */
export function hash40And8(input: usize, last: u64): u64 {
  return avalanche(
    48 * PRIME64_1 +
      mix16(input + 16, SECRET + 32) +
      mix16(input + 16, SECRET + 48) +
      mix16(input, SECRET) +
      multiplyFold(load<u64>(input, 32) ^ load<u64>(SECRET, 16), last ^ load<u64>(SECRET, 24)),
  );
}

/** Hash of the 16 bytes that are `first` and `last`, without writing them anywhere. */
export function hash8And8(first: u64, last: u64): u64 {
  return hashEnds(first, last, 16);
}

/** Of 9 to 16 bytes, by the first eight and the last eight of them. */
function hashEnds(first: u64, last: u64, length: u64): u64 {
  const low = first ^ (load<u64>(SECRET, 24) ^ load<u64>(SECRET, 32));
  const high = last ^ (load<u64>(SECRET, 40) ^ load<u64>(SECRET, 48));
  return avalanche(length + bswap<u64>(low) + high + multiplyFold(low, high));
}

function hashTo16(input: usize, length: usize): u64 {
  if (length > 8) {
    return hashEnds(load<u64>(input), load<u64>(input + length - 8), <u64>length);
  }
  if (length >= 4) {
    const first = <u64>load<u32>(input);
    const last = <u64>load<u32>(input + length - 4);
    let mixed = (last + (first << 32)) ^ (load<u64>(SECRET, 8) ^ load<u64>(SECRET, 16));
    mixed ^= rotl<u64>(mixed, 49) ^ rotl<u64>(mixed, 24);
    mixed *= PRIME_MX2;
    mixed ^= (mixed >> 35) + <u64>length;
    mixed *= PRIME_MX2;
    return mixed ^ (mixed >> 28);
  }
  if (length > 0) {
    const first = <u32>load<u8>(input);
    const middle = <u32>load<u8>(input + (length >> 1));
    const last = <u32>load<u8>(input + length - 1);
    const combined = (first << 16) | (middle << 24) | last | ((<u32>length) << 8);
    return avalanche64(<u64>combined ^ <u64>(load<u32>(SECRET, 0) ^ load<u32>(SECRET, 4)));
  }
  return EMPTY;
}

function hashTo128(input: usize, length: usize): u64 {
  const end = input + length;
  let sum = <u64>length * PRIME64_1;
  if (length > 32) {
    if (length > 64) {
      if (length > 96) {
        sum += mix16(input + 48, SECRET + 96);
        sum += mix16(end - 64, SECRET + 112);
      }
      sum += mix16(input + 32, SECRET + 64);
      sum += mix16(end - 48, SECRET + 80);
    }
    sum += mix16(input + 16, SECRET + 32);
    sum += mix16(end - 32, SECRET + 48);
  }
  sum += mix16(input, SECRET);
  sum += mix16(end - 16, SECRET + 16);
  return avalanche(sum);
}

function hashTo240(input: usize, length: usize): u64 {
  let sum = <u64>length * PRIME64_1;
  for (let offset: usize = 0; offset < 128; offset += 16) {
    sum += mix16(input + offset, SECRET + offset);
  }
  sum = avalanche(sum);
  const rounds = length & ~15;
  for (let offset: usize = 128; offset < rounds; offset += 16) {
    sum += mix16(input + offset, SECRET + offset - 125);
  }
  sum += mix16(input + length - 16, SECRET + 119);
  return avalanche(sum);
}

function hashLong(input: usize, length: usize): u64 {
  let sum0 = i64x2(PRIME32_3, PRIME64_1);
  let sum1 = i64x2(PRIME64_2, PRIME64_3);
  let sum2 = i64x2(PRIME64_4, PRIME32_2);
  let sum3 = i64x2(PRIME64_5, PRIME32_1);
  const last = input + length - STRIPE_BYTES;
  let cursor = input;
  const blocksEnd = input + ((length - 1) / BLOCK_BYTES) * BLOCK_BYTES;
  while (cursor < blocksEnd) {
    const secretEnd = SECRET + BLOCK_STRIPES * 8;
    for (let secret = SECRET; secret < secretEnd; secret += 8) {
      sum0 = accumulate(sum0, v128.load(cursor, 0), v128.load(secret, 0));
      sum1 = accumulate(sum1, v128.load(cursor, 16), v128.load(secret, 16));
      sum2 = accumulate(sum2, v128.load(cursor, 32), v128.load(secret, 32));
      sum3 = accumulate(sum3, v128.load(cursor, 48), v128.load(secret, 48));
      cursor += STRIPE_BYTES;
    }
    sum0 = scramble(sum0, v128.load(SECRET, 128));
    sum1 = scramble(sum1, v128.load(SECRET, 144));
    sum2 = scramble(sum2, v128.load(SECRET, 160));
    sum3 = scramble(sum3, v128.load(SECRET, 176));
  }
  const stripesEnd = blocksEnd + ((input + length - 1 - blocksEnd) / STRIPE_BYTES) * STRIPE_BYTES;
  for (let secret = SECRET; cursor < stripesEnd; secret += 8) {
    sum0 = accumulate(sum0, v128.load(cursor, 0), v128.load(secret, 0));
    sum1 = accumulate(sum1, v128.load(cursor, 16), v128.load(secret, 16));
    sum2 = accumulate(sum2, v128.load(cursor, 32), v128.load(secret, 32));
    sum3 = accumulate(sum3, v128.load(cursor, 48), v128.load(secret, 48));
    cursor += STRIPE_BYTES;
  }
  const lastSecret = SECRET + SECRET_BYTES - STRIPE_BYTES - 7;
  sum0 = accumulate(sum0, v128.load(last, 0), v128.load(lastSecret, 0));
  sum1 = accumulate(sum1, v128.load(last, 16), v128.load(lastSecret, 16));
  sum2 = accumulate(sum2, v128.load(last, 32), v128.load(lastSecret, 32));
  sum3 = accumulate(sum3, v128.load(last, 48), v128.load(lastSecret, 48));
  return avalanche(
    <u64>length * PRIME64_1 +
      fold(sum0, SECRET + 11) +
      fold(sum1, SECRET + 27) +
      fold(sum2, SECRET + 43) +
      fold(sum3, SECRET + 59),
  );
}

function accumulate(sum: v128, data: v128, secret: v128): v128 {
  const keyed = v128.xor(data, secret);
  const low = v128.shuffle<i32>(keyed, keyed, 0, 2, 0, 2);
  const high = v128.shuffle<i32>(keyed, keyed, 1, 3, 1, 3);
  const swapped = v128.shuffle<i64>(data, data, 1, 0);
  return i64x2.add(i64x2.add(sum, swapped), i64x2.extmul_low_i32x4_u(low, high));
}

function scramble(sum: v128, secret: v128): v128 {
  const mixed = v128.xor(v128.xor(sum, i64x2.shr_u(sum, 47)), secret);
  return i64x2.mul(mixed, i64x2.splat(PRIME32_1));
}

function fold(sum: v128, secret: usize): u64 {
  return multiplyFold(
    <u64>i64x2.extract_lane(sum, 0) ^ load<u64>(secret, 0),
    <u64>i64x2.extract_lane(sum, 1) ^ load<u64>(secret, 8),
  );
}

function mix16(input: usize, secret: usize): u64 {
  return multiplyFold(
    load<u64>(input, 0) ^ load<u64>(secret, 0),
    load<u64>(input, 8) ^ load<u64>(secret, 8),
  );
}

/** The 128-bit product, its halves xored. */
function multiplyFold(a: u64, b: u64): u64 {
  const aLow = a & 0xffffffff;
  const aHigh = a >> 32;
  const bLow = b & 0xffffffff;
  const bHigh = b >> 32;
  const highLow = aHigh * bLow;
  const cross = ((aLow * bLow) >> 32) + (highLow & 0xffffffff) + aLow * bHigh;
  return (a * b) ^ ((highLow >> 32) + (cross >> 32) + aHigh * bHigh);
}

function avalanche(sum: u64): u64 {
  let mixed = sum ^ (sum >> 37);
  mixed *= PRIME_MX1;
  return mixed ^ (mixed >> 32);
}

/** The finish of XXH64, which XXH3 uses for 1 to 3 bytes. */
function avalanche64(sum: u64): u64 {
  let mixed = sum ^ (sum >> 33);
  mixed *= PRIME64_2;
  mixed ^= mixed >> 29;
  mixed *= PRIME64_3;
  return mixed ^ (mixed >> 32);
}
