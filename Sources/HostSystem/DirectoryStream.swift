internal import CLinux
internal import Glibc

/// An open directory read entry by entry. Names are the kernel's bytes, since they need not be UTF-8.
struct DirectoryStream: ~Copyable {
    private let stream: OpaquePointer
    private let path: String

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
        self.path = path
    }

    deinit { closedir(stream) }

    /// The next name with its closing NUL, without `.` and `..`; nil at the end. Throws where the rest cannot be read: a part of
    /// a directory must not pass for all of it.
    mutating func next() throws(HostError) -> [CChar]? {
        while true {
            // readdir(3) returns NULL at the end and for an error alike; only an error sets errno.
            errno = 0
            guard let entry = readdir(stream) else {
                let code = errno
                if code != 0 { throw HostError("readdir", path, errno: code) }
                return nil
            }
            // d_name is as long as the record says, not the 256 bytes of its declaration.
            guard let offset = MemoryLayout<dirent>.offset(of: \.d_name) else { return nil }
            let start = UnsafeRawPointer(entry).advanced(by: offset).assumingMemoryBound(to: CChar.self)
            let name = Array(UnsafeBufferPointer(start: start, count: strlen(start) + 1))
            if name == [0x2e, 0] || name == [0x2e, 0x2e, 0] { continue }
            return name
        }
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
