internal import COpenSSL

/// A running digest by OpenSSL's EVP interface, which uses the processor's SHA instructions where it has them. Not Sendable:
/// one thread feeds it.
public struct Digest: ~Copyable {
    public enum Algorithm: Sendable {
        case sha256, md5

        var method: OpaquePointer? { self == .sha256 ? EVP_sha256() : EVP_md5() }
    }

    private let context: OpaquePointer?

    public init(_ algorithm: Algorithm = .sha256) {
        context = EVP_MD_CTX_new()
        EVP_DigestInit_ex(context, algorithm.method, nil)
    }

    deinit { EVP_MD_CTX_free(context) }

    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
    }

    public mutating func update(_ bytes: some Sequence<UInt8>) {
        Array(bytes).withUnsafeBytes { update($0) }
    }

    public mutating func update(_ bytes: RawSpan) {
        bytes.withUnsafeBytes { update($0) }
    }

    public consuming func finish() -> [UInt8] {
        var result = [UInt8](repeating: 0, count: 64)
        var length: UInt32 = 0
        EVP_DigestFinal_ex(context, &result, &length)
        return Array(result.prefix(Int(length)))
    }

    public static func sha256(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        var digest = Digest(.sha256)
        digest.update(bytes)
        return digest.finish()
    }

    /// Of bytes in memory, in one call.
    static func sha256(whole bytes: UnsafeRawBufferPointer) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 32) { room, count in
            EVP_Digest(bytes.baseAddress, bytes.count, room.baseAddress, nil, EVP_sha256(), nil)
            count = 32
        }
    }

    public static func md5(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        var digest = Digest(.md5)
        digest.update(bytes)
        return digest.finish()
    }

    /// HMAC with SHA-256, RFC 2104.
    public static func hmacSHA256(key: [UInt8], _ message: [UInt8]) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: 32)
        var length: UInt32 = 0
        HMAC(EVP_sha256(), key, CInt(key.count), message, message.count, &result, &length)
        return result
    }
}

extension Sequence<UInt8> {
    /// Lower-case hexadecimal.
    public var hex: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}

extension Array<UInt8> {
    /// The bytes that an even number of hexadecimal digits spell, or nil.
    public init?(hex text: some StringProtocol) {
        let digits = text.utf8.map { byte -> UInt8 in
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
            default: 255
            }
        }
        guard digits.count % 2 == 0, !digits.contains(255) else { return nil }
        self = stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }
}
