// Arrays of the page's data: little-endian bytes in base64, decoded when first used.

const NONE = 0xffffffff;
const ARRAY_TYPES = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f16: Uint16Array, f32: Float32Array };
const decodedArrays = new WeakMap();
let halfTable = null;

function fromBase64(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
}

// The number that 16 bits of half precision stand for.
function halfToNumber(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function halvesToNumbers(halves) {
    halfTable ??= Float32Array.from({ length: 65536 }, (_, bits) => halfToNumber(bits));
    const numbers = new Float32Array(halves.length);
    for (let i = 0; i < halves.length; i++) numbers[i] = halfTable[halves[i]];
    return numbers;
}

// A typed array of all numbers of `array`, row-major.
function numbersOf(array) {
    let numbers = decodedArrays.get(array);
    if (numbers) return numbers;
    const Type = ARRAY_TYPES[array.type];
    if (!Type) throw new Error(`an array of unknown type ${array.type}`);
    const bytes = fromBase64(array.data);
    const length = array.shape.reduce((product, size) => product * size, 1);
    if (bytes.length !== length * Type.BYTES_PER_ELEMENT) {
        throw new Error(`an array of ${bytes.length} bytes where its shape is ${array.shape.join(" × ")}`);
    }
    numbers = new Type(bytes.buffer, bytes.byteOffset, length);
    if (array.type === "f16") numbers = halvesToNumbers(numbers);
    decodedArrays.set(array, numbers);
    return numbers;
}

function largest(numbers) {
    let found = 0;
    for (const number of numbers) if (number > found) found = number;
    return found;
}
