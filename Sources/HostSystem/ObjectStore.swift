/// One object of a store as a listing or a HEAD shows it. The pin (`version`, else `etag`) says which bytes are meant: a read
/// that would give other bytes fails instead.
public struct StoredObject: Sendable, Equatable {
    /// The key, from the store's root, without the leading slash: `boutique/20261124T030000Z.tar.zst`.
    public let key: String
    public let size: Int64?
    /// Seconds since 1970, as the store says.
    public let modified: Int64?
    public let etag: String?
    public let version: String?

    public init(key: String, size: Int64?, modified: Int64? = nil, etag: String? = nil, version: String? = nil) {
        self.key = key
        self.size = size
        self.modified = modified
        self.etag = etag
        self.version = version
    }
}

/// Where backups lie: a bucket, a web server, a folder. Every call blocks the calling thread, honours `stop`, and retries by
/// itself what is worth retrying. Safe to share between threads.
public protocol ObjectStore: Sendable {
    /// For messages: `s3://bucket/prefix/`. Never holds a secret.
    var location: String { get }
    /// Every object whose key starts with `prefix`, in no promised order. A web server cannot list: it throws.
    func list(prefix: String, stop: StopFlag) throws -> [StoredObject]
    /// The object's present state, pinned, or nil where there is none.
    func stat(key: String, stop: StopFlag) throws -> StoredObject?
    /// A small object whole, or nil where there is none. One larger than `limit` is an error.
    func read(key: String, limit: Int, stop: StopFlag) throws -> [UInt8]?
    /// The bytes of exactly the pinned `object` from `offset` to its end, in order, resumed by itself after a break. Throws
    /// when the object was replaced or removed meanwhile, or when its length is not what was promised. All buffers of the
    /// transfer together stay within `memory`.
    func open(
        _ object: StoredObject, from offset: Int64, memory: ByteCount, stop: StopFlag,
        progress: @escaping ProgressHandler
    ) throws -> any ByteSource
}

extension ObjectStore {
    /// The whole object.
    public func open(
        _ object: StoredObject, memory: ByteCount, stop: StopFlag, progress: @escaping ProgressHandler
    ) throws -> any ByteSource {
        try open(object, from: 0, memory: memory, stop: stop, progress: progress)
    }
}
