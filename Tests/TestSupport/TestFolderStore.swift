import Glibc
public import HostSystem

/// A folder as a store, for tests: keys are paths below it. It can be told to hand out small pieces.
public final class TestFolderStore: ObjectStore {
    public let folder: String
    private let pieceSize: Int

    public init(_ folder: String, pieceSize: Int = 256 << 10) {
        self.folder = folder
        self.pieceSize = pieceSize
    }

    public var location: String { "test:\(folder)/" }

    public func list(prefix: String, stop: StopFlag) throws -> [StoredObject] {
        var result: [StoredObject] = []
        func visit(_ relative: String) throws {
            for name in try Files.names(in: folder + "/" + relative) {
                let key = relative + name
                guard let status = try Files.status(folder + "/" + key) else { continue }
                if status.kind == .directory {
                    try visit(key + "/")
                } else if key.hasPrefix(prefix) {
                    result.append(object(key, status))
                }
            }
        }
        try visit("")
        return result
    }

    public func stat(key: String, stop: StopFlag) throws -> StoredObject? {
        try Files.status(folder + "/" + key).map { object(key, $0) }
    }

    public func read(key: String, limit: Int, stop: StopFlag) throws -> [UInt8]? {
        try FileReading.bytesIfPresent(folder + "/" + key, limit: limit)
    }

    public func open(
        _ object: StoredObject, from offset: Int64, memory: ByteCount, stop: StopFlag,
        progress: @escaping ProgressHandler
    ) throws -> any ByteSource {
        try TestFileSource(folder + "/" + object.key, from: offset, pieceSize: pieceSize)
    }

    private func object(_ key: String, _ status: FileStatus) -> StoredObject {
        StoredObject(key: key, size: status.size, modified: status.modified / 1_000_000_000, etag: "\(status.inode)")
    }
}

/// A file's bytes in pieces.
public final class TestFileSource: ByteSource {
    private let descriptor: CInt
    private let buffer: UnsafeMutableRawBufferPointer

    public init(_ path: String, from offset: Int64 = 0, pieceSize: Int = 256 << 10) throws {
        descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw HostError("open", path, errno: errno) }
        lseek(descriptor, off_t(offset), SEEK_SET)
        buffer = .allocate(byteCount: pieceSize, alignment: 16)
    }

    deinit {
        close(descriptor)
        buffer.deallocate()
    }

    public func nextBytes() throws -> UnsafeRawBufferPointer {
        let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
        guard count >= 0 else { throw HostError("read", "test source", errno: errno) }
        return UnsafeRawBufferPointer(rebasing: buffer.prefix(count))
    }
}

/// Bytes in memory in pieces; throws `failure` at the end where there is one.
public final class TestByteSource: ByteSource {
    private let bytes: UnsafeMutableRawBufferPointer
    private let pieceSize: Int
    private let failure: (any Error)?
    private var position: Int

    public init(_ source: [UInt8], from offset: Int64 = 0, pieceSize: Int = 256 << 10, failure: (any Error)? = nil) {
        bytes = .allocate(byteCount: source.count, alignment: 1)
        bytes.copyBytes(from: source)
        position = Int(offset)
        self.pieceSize = pieceSize
        self.failure = failure
    }

    deinit { bytes.deallocate() }

    public func nextBytes() throws -> UnsafeRawBufferPointer {
        let piece = bytes[min(position, bytes.count)..<min(bytes.count, position + pieceSize)]
        position += piece.count
        if piece.isEmpty, let failure { throw failure }
        return UnsafeRawBufferPointer(rebasing: piece)
    }
}
