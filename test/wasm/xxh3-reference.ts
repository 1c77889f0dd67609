/**
 * XXH3-64 with seed 0, in the plainest way, from the specification of xxHash (doc/xxhash_spec.md).
 * Slow, with BigInt; the fast one is compared with it.
 */
const MASK = (1n << 64n) - 1n;
const PRIME32_1 = 0x9e3779b1n;
const PRIME32_2 = 0x85ebca77n;
const PRIME32_3 = 0xc2b2ae3dn;
const PRIME64_1 = 0x9e3779b185ebca87n;
const PRIME64_2 = 0xc2b2ae3d27d4eb4fn;
const PRIME64_3 = 0x165667b19e3779f9n;
const PRIME64_4 = 0x85ebca77c2b2ae63n;
const PRIME64_5 = 0x27d4eb2f165667c5n;
const PRIME_MX1 = 0x165667919e3779f9n;
const PRIME_MX2 = 0x9fb21c651e98df25n;

const SECRET = Buffer.from(
  'b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f' +
    'cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c' +
    '3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8' +
    'a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364' +
    'eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e' +
    '2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e',
  'hex',
);

const secret64 = (at: number): bigint => SECRET.readBigUInt64LE(at);
const secret32 = (at: number): bigint => BigInt(SECRET.readUInt32LE(at));
const rotateLeft = (x: bigint, by: bigint): bigint => ((x << by) | (x >> (64n - by))) & MASK;

function swapBytes(x: bigint): bigint {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(x);
  return buffer.readBigUInt64BE();
}

function multiplyFold(a: bigint, b: bigint): bigint {
  const product = a * b;
  return (product ^ (product >> 64n)) & MASK;
}

function avalanche(x: bigint): bigint {
  const mixed = ((x ^ (x >> 37n)) * PRIME_MX1) & MASK;
  return mixed ^ (mixed >> 32n);
}

function avalanche64(x: bigint): bigint {
  let mixed = ((x ^ (x >> 33n)) * PRIME64_2) & MASK;
  mixed = ((mixed ^ (mixed >> 29n)) * PRIME64_3) & MASK;
  return mixed ^ (mixed >> 32n);
}

export function xxh3Reference(bytes: Uint8Array): bigint {
  const input = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (input.length <= 16) return short(input);
  if (input.length <= 240) return middle(input);
  return long(input);
}

function short(input: Buffer): bigint {
  const length = input.length;
  const size = BigInt(length);
  if (length === 0) return avalanche64(secret64(56) ^ secret64(64));
  if (length <= 3) {
    const [first, half, last] = [input[0]!, input[length >> 1]!, input[length - 1]!];
    const combined = BigInt(last) | (size << 8n) | (BigInt(first) << 16n) | (BigInt(half) << 24n);
    return avalanche64(combined ^ secret32(0) ^ secret32(4));
  }
  if (length <= 8) {
    const first = BigInt(input.readUInt32LE(0));
    const last = BigInt(input.readUInt32LE(length - 4));
    let mixed = (last | (first << 32n)) ^ secret64(8) ^ secret64(16);
    mixed ^= rotateLeft(mixed, 49n) ^ rotateLeft(mixed, 24n);
    mixed = (mixed * PRIME_MX2) & MASK;
    mixed ^= (mixed >> 35n) + size;
    mixed = (mixed * PRIME_MX2) & MASK;
    return mixed ^ (mixed >> 28n);
  }
  const low = input.readBigUInt64LE(0) ^ secret64(24) ^ secret64(32);
  const high = input.readBigUInt64LE(length - 8) ^ secret64(40) ^ secret64(48);
  return avalanche((size + swapBytes(low) + high + multiplyFold(low, high)) & MASK);
}

function mix16(input: Buffer, at: number, secretAt: number): bigint {
  return multiplyFold(
    input.readBigUInt64LE(at) ^ secret64(secretAt),
    input.readBigUInt64LE(at + 8) ^ secret64(secretAt + 8),
  );
}

function middle(input: Buffer): bigint {
  const length = input.length;
  let sum = BigInt(length) * PRIME64_1;
  if (length <= 128) {
    for (let round = (length - 1) >> 5; round >= 0; round--) {
      sum += mix16(input, round * 16, round * 32);
      sum += mix16(input, length - round * 16 - 16, round * 32 + 16);
    }
    return avalanche(sum & MASK);
  }
  for (let chunk = 0; chunk < 8; chunk++) sum += mix16(input, chunk * 16, chunk * 16);
  sum = avalanche(sum & MASK);
  for (let chunk = 8; chunk < length >> 4; chunk++) {
    sum += mix16(input, chunk * 16, (chunk - 8) * 16 + 3);
  }
  return avalanche((sum + mix16(input, length - 16, 119)) & MASK);
}

function long(input: Buffer): bigint {
  const length = input.length;
  const sums = [
    PRIME32_3,
    PRIME64_1,
    PRIME64_2,
    PRIME64_3,
    PRIME64_4,
    PRIME32_2,
    PRIME64_5,
    PRIME32_1,
  ];
  const accumulate = (at: number, secretAt: number): void => {
    for (let lane = 0; lane < 8; lane++) {
      const data = input.readBigUInt64LE(at + lane * 8);
      const keyed = data ^ secret64(secretAt + lane * 8);
      sums[lane ^ 1] = (sums[lane ^ 1]! + data) & MASK;
      sums[lane] = (sums[lane]! + (keyed & 0xffffffffn) * (keyed >> 32n)) & MASK;
    }
  };
  const stripes = Math.floor((length - 1) / 64);
  for (let stripe = 0; stripe < stripes; stripe++) {
    accumulate(stripe * 64, (stripe % 16) * 8);
    if (stripe % 16 !== 15) continue;
    for (let lane = 0; lane < 8; lane++) {
      const mixed = sums[lane]! ^ (sums[lane]! >> 47n) ^ secret64(128 + lane * 8);
      sums[lane] = (mixed * PRIME32_1) & MASK;
    }
  }
  accumulate(length - 64, 121);
  let result = BigInt(length) * PRIME64_1;
  for (let lane = 0; lane < 8; lane += 2) {
    const secretAt = 11 + lane * 8;
    result += multiplyFold(
      sums[lane]! ^ secret64(secretAt),
      sums[lane + 1]! ^ secret64(secretAt + 8),
    );
  }
  return avalanche(result & MASK);
}
