/// Bytes in order, pulled by one thread, from a file, a transfer or a decoder. Blocking.
///
/// What `nextBytes` returns stays valid until the next call on the same source, and belongs to the source. An empty buffer is
/// the end, and stays the answer. A source that knows what it should have delivered (a length, a digest) throws in place of
/// the end when it did not.
public protocol ByteSource: AnyObject {
    func nextBytes() throws -> UnsafeRawBufferPointer
}

/// How far a long piece of work has come. Totals are nil while they are not known.
public struct Progress: Sendable, Equatable {
    public var bytes: Int64
    public var totalBytes: Int64?
    public var items: Int
    public var totalItems: Int?

    public init(bytes: Int64 = 0, totalBytes: Int64? = nil, items: Int = 0, totalItems: Int? = nil) {
        self.bytes = bytes
        self.totalBytes = totalBytes
        self.items = items
        self.totalItems = totalItems
    }
}

/// Called from whichever thread does the work, often; the receiver thins out.
public typealias ProgressHandler = @Sendable (Progress) -> Void
