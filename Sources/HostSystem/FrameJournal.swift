internal import CLinux
internal import Glibc

/// Which frames of a restore are written: a file beside the directory that is filled. It holds for the same backup and the same
/// boot of the machine alone: what a killed process has written stays in the page cache, what a crashed machine has may not
/// be on its disk. Any thread may use it.
///
/// Files that come in pieces are never taken for written: their frames are written again.
public final class FrameJournal: Sendable {
    private let path: String
    private let descriptor: CInt
    private let known: Set<Int>

    /// Goes on with the file where it is of this backup and boot; begins a new one otherwise.
    ///
    /// - Parameter identity: whatever tells the backup and the boot from any other; no newline in it.
    public init(_ path: String, identity: String) throws(HostError) {
        self.path = path
        let head = "amorce-frames " + identity + "\n"
        let text = (try? FileReading.text(path, limit: 64 << 20)) ?? ""
        let isSame = text.hasPrefix(head)
        if isSame {
            // The last line counts only with its newline: it may have been cut.
            let lines = text.dropFirst(head.count).split(separator: "\n", omittingEmptySubsequences: false).dropLast()
            known = Set(lines.compactMap { Int($0) })
        } else {
            try Files.remove(path)
            known = []
        }
        let flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC
        descriptor = amorce_openat(AT_FDCWD, path, flags, 0o600)
        guard descriptor >= 0 else { throw HostError("open", path, errno: errno) }
        // A cut line must not run into the next one.
        try append(isSame ? (text.hasSuffix("\n") ? "" : "\n") : head)
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// Whether an earlier run has written anything.
    public var hasFrames: Bool { !known.isEmpty }

    func contains(_ frame: Int) -> Bool { known.contains(frame) }

    func add(_ frame: Int) throws(HostError) { try append("\(frame)\n") }

    private func append(_ text: String) throws(HostError) {
        if text.isEmpty { return }
        // One write(2) with O_APPEND: lines of several threads do not mix.
        if !Host.write(Array(text.utf8), descriptor: descriptor) { throw HostError("write", path, errno: errno) }
    }

    public func remove() throws(HostError) { try Files.remove(path) }
}
