internal import CLinux
internal import Glibc

/// An open directory read entry by entry. Names are the kernel's bytes, since they need not be UTF-8.
struct DirectoryStream: ~Copyable {
    private let stream: OpaquePointer

    /// Reads the directory behind `descriptor` from its start; `descriptor` stays the caller's.
    init(reading descriptor: CInt, shown path: String) throws(HostError) {
        let own = amorce_openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        guard own >= 0 else { throw HostError("open", path, errno: errno) }
        guard let stream = fdopendir(own) else {
            let code = errno
            close(own)
            throw HostError("fdopendir", path, errno: code)
        }
        self.stream = stream
    }

    deinit { closedir(stream) }

    /// The next name with its closing NUL, without `.` and `..`; nil at the end.
    mutating func next() -> [CChar]? {
        while let entry = readdir(stream) {
            // d_name is as long as the record says, not the 256 bytes of its declaration.
            guard let offset = MemoryLayout<dirent>.offset(of: \.d_name) else { return nil }
            let start = UnsafeRawPointer(entry).advanced(by: offset).assumingMemoryBound(to: CChar.self)
            let name = Array(UnsafeBufferPointer(start: start, count: strlen(start) + 1))
            if name == [0x2e, 0] || name == [0x2e, 0x2e, 0] { continue }
            return name
        }
        return nil
    }
}

extension [CChar] {
    /// The bytes before the closing NUL.
    var nameBytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { room, length in
            while length < count, self[length] != 0 {
                room[length] = UInt8(bitPattern: self[length])
                length += 1
            }
        }
    }
}
