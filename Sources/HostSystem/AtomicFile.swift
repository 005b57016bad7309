internal import CLinux
internal import Glibc

/// Files that appear whole or not at all.
public enum AtomicFile {
    /// Writes a new file that nobody else can open before its owner and mode are final: exclusive create with mode 0600, then
    /// fchown, fchmod, write, fsync. The caller renames it. An old file of that name (of a run that was killed) is removed.
    public static func prepare(
        _ bytes: [UInt8], at path: String, mode: UInt32, owner: UInt32? = nil, group: UInt32? = nil
    ) throws(HostError) {
        try Files.remove(path)
        let descriptor = amorce_openat(
            AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw HostError("open", path, errno: errno) }
        defer { close(descriptor) }
        try writeAll(descriptor, bytes, path: path)
        // Owner before mode: chown clears set-id bits, and no foreign owner may see a wider mode than its own.
        if let owner, let group, fchown(descriptor, owner, group) != 0 { throw HostError("fchown", path, errno: errno) }
        if fchmod(descriptor, mode) != 0 { throw HostError("fchmod", path, errno: errno) }
        if fsync(descriptor) != 0 { throw HostError("fsync", path, errno: errno) }
    }

    /// Replaces `path` in one step; durable when it returns.
    public static func write(
        _ bytes: [UInt8], to path: String, mode: UInt32, owner: UInt32? = nil, group: UInt32? = nil
    ) throws(HostError) {
        let temporary = path + ".amorce-new"
        try prepare(bytes, at: temporary, mode: mode, owner: owner, group: group)
        try Files.rename(temporary, to: path)
        if let parent = Files.parent(of: path) { try Files.synchronizeDirectory(parent) }
    }

    /// Appends whole lines to a log; creates it with `mode`. A symlink in its place is refused.
    public static func append(_ bytes: [UInt8], to path: String, mode: UInt32) throws(HostError) {
        let descriptor = amorce_openat(
            AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw HostError("open", path, errno: errno) }
        defer { close(descriptor) }
        try writeAll(descriptor, bytes, path: path)
    }

    private static func writeAll(_ descriptor: CInt, _ bytes: [UInt8], path: String) throws(HostError) {
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress?.advanced(by: done), $0.count - done)
            }
            if count < 0 {
                if errno == EINTR { continue }
                throw HostError("write", path, errno: errno)
            }
            done += count
        }
    }
}
