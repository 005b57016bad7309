public import HostSystem
import Synchronization

/// A writable store in memory. It keeps uploads to its rules, counts what is read, and can be told to fail.
public final class MemoryStore: WritableStore {
    public struct Broken: Error, Equatable, CustomStringConvertible {
        public let description: String
        public init(_ description: String) { self.description = description }
    }

    struct Stored {
        var bytes: [UInt8]
        var version: Int
        var modified: Int64
    }

    struct State {
        var objects: [String: Stored] = [:]
        var versions = 0
        var opened: [Int64] = []
        var delivered = 0
        var aborted = 0
        var copiesUntilGone: Int?
        var beforeList: (@Sendable () throws -> Void)?
        var beforeSend: (@Sendable (Int) throws -> Void)?
    }

    private let state = Mutex(State())
    public let partRules: PartRules
    private let pieceSize: Int
    private let modified: Int64

    public init(
        rules: PartRules = PartRules(smallest: 1, largest: 1 << 40, most: 10_000), pieceSize: Int = 64 << 10,
        modified: Int64 = 1_700_000_000
    ) {
        partRules = rules
        self.pieceSize = pieceSize
        self.modified = modified
    }

    public var location: String { "memory:/" }

    // MARK: For tests

    /// The bytes of an object; setting them makes another version of it, nil removes it.
    public subscript(_ key: String) -> [UInt8]? {
        get { state.withLock { $0.objects[key]?.bytes } }
        set {
            state.withLock { state in
                state.versions += 1
                state.objects[key] = newValue.map { Stored(bytes: $0, version: state.versions, modified: modified) }
            }
        }
    }

    public var keys: [String] { state.withLock { $0.objects.keys.sorted() } }
    /// The offsets at which objects were opened.
    public var opened: [Int64] { state.withLock { $0.opened } }
    /// Bytes that sources have handed out.
    public var delivered: Int { state.withLock { $0.delivered } }
    public var aborted: Int { state.withLock { $0.aborted } }

    public func forgetReads() {
        state.withLock {
            $0.opened = []
            $0.delivered = 0
        }
    }

    /// After so many copied parts the source is gone, once.
    public func copiesUntilGone(_ count: Int) { state.withLock { $0.copiesUntilGone = count } }
    /// Called before each part that is sent, with its number.
    public func beforeSend(_ body: (@Sendable (Int) throws -> Void)?) { state.withLock { $0.beforeSend = body } }

    /// Called before each listing, which a new backup makes when the tree is scanned and nothing is read.
    public func beforeList(_ body: (@Sendable () throws -> Void)?) { state.withLock { $0.beforeList = body } }

    // MARK: ObjectStore

    private func object(_ key: String, _ stored: Stored) -> StoredObject {
        StoredObject(
            key: key, size: Int64(stored.bytes.count), modified: stored.modified, etag: "\(stored.version)")
    }

    public func list(prefix: String, stop: StopFlag) throws -> [StoredObject] {
        try state.withLock { $0.beforeList }?()
        return state.withLock { state in
            state.objects.filter { $0.key.hasPrefix(prefix) }.map { object($0.key, $0.value) }
        }
    }

    public func stat(key: String, stop: StopFlag) throws -> StoredObject? {
        state.withLock { state in state.objects[key].map { object(key, $0) } }
    }

    public func read(key: String, limit: Int, stop: StopFlag) throws -> [UInt8]? { self[key] }

    public func open(
        _ object: StoredObject, from offset: Int64, memory: ByteCount, stop: StopFlag,
        progress: @escaping ProgressHandler
    ) throws -> any ByteSource {
        let bytes = try state.withLock { state in
            guard let stored = state.objects[object.key], "\(stored.version)" == object.etag else {
                throw Broken("\(object.key) is gone or replaced")
            }
            state.opened.append(offset)
            return stored.bytes
        }
        return Source(self, TestByteSource(bytes, from: offset, pieceSize: pieceSize))
    }

    private final class Source: ByteSource {
        let store: MemoryStore
        let source: TestByteSource

        init(_ store: MemoryStore, _ source: TestByteSource) {
            self.store = store
            self.source = source
        }

        func nextBytes() throws -> UnsafeRawBufferPointer {
            let bytes = try source.nextBytes()
            store.state.withLock { $0.delivered += bytes.count }
            return bytes
        }
    }

    // MARK: WritableStore

    public func beginUpload(key: String, stop: StopFlag) throws -> any ObjectUpload {
        if self[key] != nil { throw StoreConflict(object: key) }
        return Upload(self, key)
    }

    public func put(key: String, bytes: [UInt8], stop: StopFlag) throws {
        if self[key] != nil { throw StoreConflict(object: key) }
        self[key] = bytes
    }

    public func remove(key: String, stop: StopFlag) throws { self[key] = nil }

    private final class Upload: ObjectUpload {
        let store: MemoryStore
        let key: String
        let parts = Mutex<[Int: [UInt8]]>([:])

        init(_ store: MemoryStore, _ key: String) {
            self.store = store
            self.key = key
        }

        private func take(_ number: Int, _ bytes: [UInt8]) throws {
            if Int64(bytes.count) > store.partRules.largest { throw Broken("part \(number) is too large") }
            try parts.withLock {
                if $0.updateValue(bytes, forKey: number) != nil { throw Broken("part \(number) came twice") }
            }
        }

        func send(part: Int, bytes: [UInt8]) throws {
            try store.state.withLock { $0.beforeSend }?(part)
            try take(part, bytes)
        }

        func copy(part: Int, from object: StoredObject, range: Range<Int64>) throws {
            let bytes = try store.state.withLock { state in
                if let left = state.copiesUntilGone {
                    state.copiesUntilGone = left > 0 ? left - 1 : nil
                    if left == 0 { throw CopySourceGone(object: object.key) }
                }
                guard let stored = state.objects[object.key], "\(stored.version)" == object.etag else {
                    throw CopySourceGone(object: object.key)
                }
                return Array(stored.bytes[Int(range.lowerBound)..<Int(range.upperBound)])
            }
            try take(part, bytes)
        }

        func complete() throws -> StoredObject {
            let bytes = try parts.withLock { parts in
                if parts.count > store.partRules.most { throw Broken("\(parts.count) parts") }
                var bytes: [UInt8] = []
                for number in 1...max(1, parts.count) {
                    guard let part = parts[number] else { throw Broken("part \(number) is missing") }
                    if number < parts.count && Int64(part.count) < store.partRules.smallest {
                        throw Broken("part \(number) is too small: \(part.count)")
                    }
                    bytes += part
                }
                return bytes
            }
            try store.put(key: key, bytes: bytes, stop: .bounded())
            guard let object = try store.stat(key: key, stop: .bounded()) else { throw Broken("it vanished") }
            return object
        }

        func abort() { store.state.withLock { $0.aborted += 1 } }
    }
}
