internal import CLinux

/// Bytes that must never be shown: a password, a key, a token, a signed URL, user-data. Printing, interpolating, dumping or
/// reflecting one shows a mark in place of the bytes; the bytes are overwritten when the last reference goes.
public struct Secret: Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    private final class Storage: Sendable {
        // Written once in init, read-only afterwards, wiped in deinit: safe to share between threads.
        nonisolated(unsafe) let bytes: UnsafeMutableRawBufferPointer

        init(_ source: some Collection<UInt8>) {
            bytes = .allocate(byteCount: source.count, alignment: 1)
            bytes.copyBytes(from: source)
        }

        deinit {
            if let base = bytes.baseAddress { amorce_wipe(base, bytes.count) }
            bytes.deallocate()
        }
    }

    private let storage: Storage

    public init(bytes: some Collection<UInt8>) { storage = Storage(bytes) }
    public init(_ text: String) { storage = Storage(Array(text.utf8)) }

    /// The secret itself. Whoever asks for it must not keep it longer than the one use.
    public var revealedBytes: [UInt8] { Array(storage.bytes) }
    /// The secret as text, or nil where its bytes are not UTF-8.
    public var revealedText: String? { String(validating: revealedBytes, as: UTF8.self) }
    public var isEmpty: Bool { storage.bytes.isEmpty }

    public var description: String { "(secret)" }
    public var debugDescription: String { "(secret)" }
    public var customMirror: Mirror { Mirror(self, children: []) }

    /// Constant time in the bytes, so that a comparison tells nothing by its duration.
    public static func == (left: Secret, right: Secret) -> Bool {
        let a = left.storage.bytes
        let b = right.storage.bytes
        guard a.count == b.count else { return false }
        var difference: UInt8 = 0
        for index in a.indices { difference |= a[index] ^ b[index] }
        return difference == 0
    }
}
