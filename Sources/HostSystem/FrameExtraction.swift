internal import CLinux
internal import Glibc

/// Unpacks a backup that consists of independent frames: one thread reads them in order from the store, several check,
/// decompress and write them, links and directories come at the end. What is on its way between the threads is bounded, so a
/// slow disk slows the transfer and not the machine.
///
/// Nothing is taken from the tar inside: the manifest says what lies where, and each frame's SHA-256 that it is the one that the
/// manifest means.
public enum FrameExtraction {
    public struct Options: Sendable {
        public var threads: Int
        /// Of everything that is made; nil: whoever this process is. Needs the superuser.
        public var owner: (owner: UInt32, group: UInt32)?
        public var limits = ExtractionLimits()
        /// Of the backup, as its manifest states it.
        public var size: Int64
        public var files: Int
        public var bytes: Int64
        /// Permission bits as they were; else everything is open to its owner, as `ExtractionPolicy` has it. Set-id and sticky bits
        /// go in either case.
        public var keepsModes = false
        /// Which frames are written already is kept in this file, so that an interrupted restore goes on; nil: it does not.
        public var journal: FrameJournal?

        public init(threads: Int, size: Int64, files: Int, bytes: Int64) {
            self.threads = threads
            self.size = size
            self.files = files
            self.bytes = bytes
        }

        fileprivate func mode(_ stored: UInt16, least: UInt32) -> UInt32 {
            UInt32(stored) & 0o777 | (keepsModes ? 0 : least)
        }
    }

    /// A frame of the backup, with the text that tells what it holds.
    public struct Frame: Sendable {
        public var offset: Int64
        public var length: Int
        public var unpacked: Int
        public var sha256: [UInt8]
        /// The files in it, for the check of the limits before anything is read.
        public var files: Int
        public var contents: [UInt8]

        public init(
            offset: Int64, length: Int, unpacked: Int, sha256: [UInt8], files: Int, contents: [UInt8]
        ) {
            self.offset = offset
            self.length = length
            self.unpacked = unpacked
            self.sha256 = sha256
            self.files = files
            self.contents = contents
        }
    }

    /// What is made when all files are: links and directories, in the order in which they are asked for.
    public enum Last: Sendable, Equatable {
        case symlink(path: [UInt8], target: [UInt8], modified: Int64)
        case hardLink(path: [UInt8], target: [UInt8])
        case directory(path: [UInt8], mode: UInt16, modified: Int64)
        /// Of the folder itself.
        case root(mode: UInt16, modified: Int64)
    }

    public struct Result: Sendable, Equatable {
        public var files = 0
        public var directories = 0
        public var links = 0
        public var bytes: Int64 = 0
        /// Read from the store in this run.
        public var compressedBytes: Int64 = 0
        /// Frames that an earlier, interrupted run had written.
        public var framesKept = 0
    }

    /// Larger frames are not made, and would cost the memory.
    public static let largestFrame = 1 << 30 + 1 << 20

    /// - Parameter frames: the next frame in the order of their offsets, or nil after the last one. Called on this thread.
    /// - Parameter members: what a frame's text says; called on any thread.
    /// - Parameter last: called on this thread when `frames` has ended.
    /// - Parameter open: the object's bytes from an offset on.
    /// - Throws: `ArchiveError`, `HostError`, `StopReason`, and what the arguments throw.
    public static func run(
        into directory: String, options: Options, stop: StopFlag, progress: ProgressHandler,
        frames: () throws -> Frame?, members: @escaping @Sendable (Frame) throws -> [FrameMember],
        last: () throws -> Last?, open: @escaping (_ offset: Int64) throws -> any ByteSource
    ) throws -> Result {
        let isContinued = options.journal?.hasFrames ?? false
        let root = try TreeRoot(
            directory: directory, owner: options.owner.map { TreeRoot.Ownership(owner: $0.owner, group: $0.group) },
            isEmpty: !isContinued)
        if !isContinued {
            try TreeRoot.checkRoom(at: directory, bytes: options.bytes, inodes: Int64(options.files))
        }
        let work = FrameWork(root, options, isContinued: isContinued)
        var result = Result()
        do {
            let workers = try Workers("unpack", count: options.threads, on: work.queue) { _ in
                try work.run(members: members)
            }
            defer { workers.join() }
            let fed = feed(work.queue, options, stop, frames, members, open) { number, frame in
                guard options.journal?.contains(number) == true else { return work.takeBuffer() }
                result.framesKept += 1
                work.skip(frame)
                return nil
            } progress: { frame in
                progress(
                    Progress(
                        bytes: frame.offset + Int64(frame.length), totalBytes: options.size,
                        items: work.written.files, totalItems: options.files))
            }
            result.compressedBytes = fed.compressedBytes
        }
        if let failure = work.queue.firstFailure { throw failure }
        let written = work.written
        result.files = written.files
        result.bytes = written.bytes
        try finish(root, options, implied: written.directories, last: last, &result, stop: stop)
        return result
    }

    /// Reads every frame and compares it with what the manifest says, without writing anything: hashes, checksums, and that the tar
    /// inside is the one that the members make.
    ///
    /// - Parameter members: all of a frame, those that a later frame replaces included, and the bytes of the others; called on any
    ///   thread. Nil: the frame holds links, directories and the end mark.
    /// - Parameter last: as of `run`; called on this thread when `frames` has ended and all were checked.
    public static func verify(
        options: Options, stop: StopFlag, progress: ProgressHandler, frames: () throws -> Frame?,
        members: @escaping @Sendable (Frame) throws -> (all: [FrameMember], liveBytes: Int64)?,
        last: () throws -> Last?, open: @escaping (_ offset: Int64) throws -> any ByteSource
    ) throws -> Result {
        let work = FrameCheck(room: options.threads + 1, limits: options.limits)
        var result = Result()
        var number = 0
        do {
            let workers = try Workers("verify", count: options.threads, on: work.queue) { _ in
                try work.run(members: members)
            }
            defer { workers.join() }
            let fed = feed(work.queue, options, stop, frames, { try members($0)?.all ?? [] }, open) { _, frame in
                result.files += frame.files
                return PackBuffer(room: frame.length)
            } progress: { frame in
                progress(
                    Progress(
                        bytes: frame.offset + Int64(frame.length), totalBytes: options.size, items: result.files,
                        totalItems: options.files))
            }
            (number, result.compressedBytes) = fed
        }
        if let failure = work.queue.firstFailure { throw failure }
        result.bytes = work.bytes
        try work.checkLast(frames: number) {
            try stop.check()
            let next = try last()
            if let next { try check(next, limits: options.limits) }
            return next
        }
        return result
    }

    /// Reads the frames in their order and hands those that are wanted to the threads; ends the queue in any case, by what went
    /// wrong if anything did.
    ///
    /// - Parameter wanted: what a frame is read into, or nil where it is not wanted.
    private static func feed(
        _ queue: WorkQueue<FrameJob>, _ options: Options, _ stop: StopFlag, _ frames: () throws -> Frame?,
        _ members: (Frame) throws -> [FrameMember], _ open: @escaping (Int64) throws -> any ByteSource,
        wanted: (Int, Frame) -> PackBuffer?, progress: (Frame) -> Void
    ) -> (frames: Int, compressedBytes: Int64) {
        var number = 0
        var compressed: Int64 = 0
        do {
            let reader = FrameReader(open: open)
            var counts = (files: 0, bytes: Int64(0))
            var pieces = PieceOrder()
            while let frame = try frames() {
                try stop.check()
                counts.files += frame.files
                counts.bytes += Int64(frame.unpacked)
                try check(frame, counts, options)
                // Before any thread has it: no file is closed while another piece of it is on its way.
                try pieces.add(frame, members)
                if let buffer = wanted(number, frame) {
                    try reader.read(frame, into: buffer)
                    compressed += Int64(frame.length)
                    try queue.put(FrameJob(number: number, frame: frame, bytes: buffer), stop: stop)
                }
                number += 1
                progress(frame)
            }
            try pieces.finish()
            queue.finish()
        } catch {
            queue.fail(error)
        }
        return (number, compressed)
    }

    private static func check(_ frame: Frame, _ counts: (files: Int, bytes: Int64), _ options: Options) throws {
        guard frame.offset >= 0, (1...largestFrame).contains(frame.length), (0...largestFrame).contains(frame.unpacked),
            frame.offset <= options.size - Int64(frame.length)
        else { throw ArchiveError.damaged("the manifest names a frame that cannot be") }
        if counts.files > options.limits.entries { throw ArchiveError.limit(.entries(options.limits.entries)) }
        if counts.bytes > options.limits.bytes.value { throw ArchiveError.limit(.bytes(options.limits.bytes)) }
    }

    /// Whether a link or a directory may be made: its name is plain, and a symlink stays inside.
    public static func check(_ last: Last, limits: ExtractionLimits) throws {
        func plain(_ path: [UInt8]) throws {
            guard ExtractionPolicy.isPlain(path, limits: limits) else {
                throw ArchiveError.damaged("a name that no backup holds", entry: Printable.text(path))
            }
        }
        switch last {
        case .symlink(let path, let target, _):
            try plain(path)
            if let refusal = ExtractionPolicy.refusal(ofTarget: target, from: path) {
                throw ArchiveError.refused(refusal, entry: Printable.text(path))
            }
        case .hardLink(let path, let target):
            try plain(path)
            try plain(target)
        case .directory(let path, _, _): try plain(path)
        case .root: break
        }
    }

    private static func finish(
        _ root: TreeRoot, _ options: Options, implied: [TreeWriter.Directory], last: () throws -> Last?,
        _ result: inout Result,
        stop: StopFlag
    ) throws {
        // Of an interrupted run some links are there already.
        var writer = TreeWriter(root, replacesEarlier: options.journal?.hasFrames ?? false)
        let limits = options.limits
        let made = Set(implied.lazy.map(\.path))
        var rootStatus: (mode: UInt16, modified: Int64)?
        while let next = try last() {
            try stop.check()
            try check(next, limits: limits)
            switch next {
            case .symlink(let path, let target, let modified):
                let time = timespec(nanoseconds: modified)
                try writer.make(
                    ExtractionPolicy.Member(path: path, kind: .symlink(target: target), mode: 0o777), size: 0,
                    modified: (Int64(time.tv_sec), time.tv_nsec), contents: { _ in })
            case .hardLink(let path, let target):
                try writer.make(
                    ExtractionPolicy.Member(path: path, kind: .hardLink(target: target), mode: 0),
                    size: 0, modified: nil, contents: { _ in })
            case .directory(let path, let mode, let modified):
                let time = timespec(nanoseconds: modified)
                let mode = options.mode(mode, least: 0o700)
                if made.contains(path) {
                    writer.tell(of: path, mode: mode, modified: time)
                } else {
                    try writer.make(
                        ExtractionPolicy.Member(path: path, kind: .directory, mode: mode), size: 0,
                        modified: (Int64(time.tv_sec), time.tv_nsec), contents: { _ in })
                }
                result.directories += 1
            case .root(let mode, let modified): rootStatus = (mode, modified)
            }
        }
        result.links = writer.links
        // Settling the directories opens each by its path from the root: deepest first, so that a mode that locks one keeps
        // nothing below it out of reach.
        try TreeWriter.settle(
            root, symlinks: writer.symlinks, directories: implied + writer.directories.reversed(), stop: stop)
        if let rootStatus {
            // A release's own mode is not the backup's to say.
            try root.settle(
                mode: options.keepsModes ? options.mode(rootStatus.mode, least: 0o700) : nil,
                modified: timespec(nanoseconds: rootStatus.modified))
        }
        try root.synchronize()
    }
}

/// That the pieces of a large file come one after the other, each in a frame of its own, from the first byte to the last.
struct PieceOrder {
    private var open: FrameMember?
    private var seen: Set<[UInt8]> = []

    /// Whether a frame's text is that of a piece: a writer puts no other line with it.
    static func isPiece(_ frame: FrameExtraction.Frame) -> Bool { frame.contents.first == UInt8(ascii: "p") }

    /// That a frame with a piece holds nothing else, and that `isPiece` could tell.
    static func check(_ members: [FrameMember], of frame: FrameExtraction.Frame) throws {
        guard isPiece(frame) ? members.count == 1 : !members.contains(where: \.isPiece) else {
            throw ArchiveError.damaged("a frame with a piece of a file holds more than that")
        }
    }

    mutating func add(
        _ frame: FrameExtraction.Frame, _ members: (FrameExtraction.Frame) throws -> [FrameMember]
    ) throws {
        guard Self.isPiece(frame) else { return try finish() }
        let list = try members(frame)
        try Self.check(list, of: frame)
        let piece = list[0]
        if let open {
            guard piece.path == open.path, piece.size == open.size, piece.mode == open.mode,
                piece.modified == open.modified, piece.fileOffset == open.fileOffset + Int64(open.count)
            else { throw Self.notInOrder(open) }
        } else if piece.fileOffset != 0 || !seen.insert(piece.path).inserted {
            throw Self.notInOrder(piece)
        }
        open = piece.fileOffset + Int64(piece.count) == piece.size ? nil : piece
    }

    func finish() throws { if let open { throw Self.notInOrder(open) } }

    private static func notInOrder(_ piece: FrameMember) -> ArchiveError {
        .damaged("the pieces of the file do not follow each other", entry: Printable.text(piece.path))
    }
}

/// Frames of one object read in their order. Frames between two wanted ones are read over where they are small, else the
/// object is opened anew.
private final class FrameReader {
    private let open: (Int64) throws -> any ByteSource
    private var source: (any ByteSource)?
    private var waiting = UnsafeRawBufferPointer(start: nil, count: 0)
    private var position: Int64 = 0

    init(open: @escaping (Int64) throws -> any ByteSource) { self.open = open }

    func read(_ frame: FrameExtraction.Frame, into buffer: PackBuffer) throws {
        let gap = frame.offset - position
        if source == nil || gap < 0 || gap > 4 << 20 {
            // Ended before the next one begins: each holds its connections.
            source = nil
            source = try open(frame.offset)
            waiting = UnsafeRawBufferPointer(start: nil, count: 0)
            position = frame.offset
        } else if gap > 0 {
            try take(Int(gap)) { _ in }
        }
        buffer.removeAll(reserving: frame.length)
        try take(frame.length) { buffer.append($0) }
    }

    private func take(_ count: Int, _ body: (UnsafeRawBufferPointer) -> Void) throws {
        var left = count
        while left > 0 {
            if waiting.isEmpty {
                waiting = try source?.nextBytes() ?? waiting
                if waiting.isEmpty { throw ArchiveError.damaged("the object ends at byte \(position), within a frame") }
            }
            let part = UnsafeRawBufferPointer(rebasing: waiting.prefix(left))
            body(part)
            waiting = UnsafeRawBufferPointer(rebasing: waiting.dropFirst(part.count))
            position += Int64(part.count)
            left -= part.count
        }
    }
}

/// A frame as it was read, on its way to a thread: its bytes belong to whoever has the job.
private struct FrameJob: @unchecked Sendable {
    let number: Int
    let frame: FrameExtraction.Frame
    let bytes: PackBuffer
}

/// What the threads that unpack share.
private final class FrameWork: @unchecked Sendable {
    struct Written {
        var files = 0
        var bytes: Int64 = 0
        var directories: [TreeWriter.Directory] = []
    }

    let queue: WorkQueue<FrameJob>
    private let monitor = Monitor()
    private let root: TreeRoot
    private let options: FrameExtraction.Options
    private let isContinued: Bool
    private var buffers: [PackBuffer] = []
    private var total = Written()
    private var large: [[UInt8]: Large] = [:]

    /// A file that comes in pieces.
    private struct Large {
        let descriptor: CInt
        var left: Int64
    }

    init(_ root: TreeRoot, _ options: FrameExtraction.Options, isContinued: Bool) {
        self.root = root
        self.isContinued = isContinued
        self.options = options
        queue = WorkQueue(room: options.threads + 1)
    }

    deinit { for file in large.values { close(file.descriptor) } }

    var written: Written { monitor.locked { total } }

    func takeBuffer() -> PackBuffer { monitor.locked { buffers.popLast() } ?? PackBuffer(room: 1 << 20) }

    /// What an earlier run wrote counts.
    func skip(_ frame: FrameExtraction.Frame) { monitor.locked { total.files += frame.files } }

    /// One thread's work.
    func run(members: (FrameExtraction.Frame) throws -> [FrameMember]) throws {
        let ownsUmask = root.takeOwnUmask()
        // A name comes once; what is there already can only be an interrupted run's.
        var writer = TreeWriter(
            root, replacesEarlier: isContinued, lostModeBits: ownsUmask ? 0 : nil, expectsNewDirectories: true)
        let reader = try ZstdFrameReader(checks: false)
        let unpacked = PackBuffer(room: 3 << 20)
        var reported = 0
        while let job = queue.take() {
            try reader.unpack(checked: job.frame, job.bytes.bytes, into: unpacked)
            monitor.locked { buffers.append(job.bytes) }
            var bytes: Int64 = 0
            let list = try members(job.frame)
            try PieceOrder.check(list, of: job.frame)
            for member in list {
                bytes += Int64(member.count)
                try write(member, unpacked.bytes, &writer)
            }
            let files = writer.files
            monitor.locked {
                total.files += files - reported
                total.bytes += bytes
            }
            reported = files
            if !list.contains(where: \.isPiece) { try options.journal?.add(job.number) }
        }
        let directories = writer.directories
        monitor.locked { total.directories += directories }
    }

    private func write(
        _ member: FrameMember, _ unpacked: UnsafeRawBufferPointer, _ writer: inout TreeWriter
    ) throws {
        guard ExtractionPolicy.isPlain(member.path, limits: options.limits) else {
            throw ArchiveError.damaged("a name that no backup holds", entry: Printable.text(member.path))
        }
        guard member.start >= 0, member.count >= 0, member.start <= unpacked.count - member.count else {
            throw ArchiveError.damaged("its bytes do not lie in its frame", entry: Printable.text(member.path))
        }
        let bytes = UnsafeRawBufferPointer(rebasing: unpacked[member.start..<(member.start + member.count)])
        let mode = options.mode(member.mode, least: 0o600)
        if !member.isPiece {
            return try writer.make(file: member.path, mode: mode, modified: member.modified, bytes: bytes)
        }
        guard member.fileOffset >= 0, member.fileOffset <= member.size - Int64(member.count) else {
            throw ArchiveError.damaged("a piece lies outside of its file", entry: Printable.text(member.path))
        }
        let descriptor = try begin(member, &writer)
        try Files.write(bytes, to: descriptor, at: member.fileOffset, shown: root.shown(member.path))
        let isComplete = monitor.locked {
            guard var file = large[member.path] else { return false }
            file.left -= Int64(member.count)
            large[member.path] = file.left == 0 ? nil : file
            return file.left == 0
        }
        if isComplete {
            try writer.finish(largeFile: descriptor, path: member.path, mode: mode, modified: member.modified)
        }
    }

    private func begin(_ member: FrameMember, _ writer: inout TreeWriter) throws -> CInt {
        // Held while the file is made, so that no other piece makes it too.
        try monitor.locked {
            if let file = large[member.path] { return file.descriptor }
            let descriptor = try writer.begin(largeFile: member.path, mode: options.mode(member.mode, least: 0o600))
            large[member.path] = Large(descriptor: descriptor, left: member.size)
            return descriptor
        }
    }
}

/// What the threads that verify share.
private final class FrameCheck: @unchecked Sendable {
    let queue: WorkQueue<FrameJob>
    private let limits: ExtractionLimits
    private let monitor = Monitor()
    private var total: Int64 = 0
    /// Of the frames of links, directories and the end: the length, and the SHA-256 of what the manifest tells of it.
    private var headers: [(number: Int, count: Int, sha256: [UInt8])] = []

    init(room: Int, limits: ExtractionLimits) {
        queue = WorkQueue(room: room)
        self.limits = limits
    }

    /// Of the files that no later frame replaces.
    var bytes: Int64 { monitor.locked { total } }

    func run(members: (FrameExtraction.Frame) throws -> (all: [FrameMember], liveBytes: Int64)?) throws {
        let reader = try ZstdFrameReader(checks: true)
        let unpacked = PackBuffer(room: 3 << 20)
        while let job = queue.take() {
            try reader.unpack(checked: job.frame, job.bytes.bytes, into: unpacked)
            guard let (members, liveBytes) = try members(job.frame) else {
                var told = Array(unpacked.bytes)
                guard TarMember.dropUntold(from: &told) else { throw Self.otherLast }
                let sha256 = Digest.sha256(told)
                monitor.locked { headers.append((job.number, told.count, sha256)) }
                continue
            }
            try PieceOrder.check(members, of: job.frame)
            try Self.compare(unpacked.bytes, with: members, limits: limits)
            monitor.locked { total += liveBytes }
        }
    }

    private static let otherLast = ArchiveError.damaged(
        "the links and directories of the tar inside are not those that the manifest describes")

    /// When all frames are read: those of links, directories and the end stand behind all others, and hold together what a backup
    /// makes of the manifest's lines. Directories come deepest first, so they are kept until then; of the rest no more than a
    /// frame is.
    func checkLast(frames: Int, _ next: () throws -> FrameExtraction.Last?) throws {
        let stored = monitor.locked { headers.sorted { $0.number < $1.number } }
        guard stored.map(\.number) == Array((frames - stored.count)..<frames) else { throw Self.otherLast }
        var current = 0
        var waiting: [UInt8] = []
        func add(_ bytes: [UInt8]) throws {
            waiting += bytes
            while current < stored.count, waiting.count >= stored[current].count {
                guard Digest.sha256(Array(waiting.prefix(stored[current].count))) == stored[current].sha256 else {
                    throw Self.otherLast
                }
                waiting.removeFirst(stored[current].count)
                current += 1
            }
            if current == stored.count && !waiting.isEmpty { throw Self.otherLast }
        }
        var directories: [TarMember] = []
        var entries = 0
        while let last = try next() {
            entries += 1
            if entries > limits.entries { throw ArchiveError.limit(.entries(limits.entries)) }
            switch last {
            case .symlink(let path, let target, let modified):
                try add(
                    TarMember(path: path, kind: .symlink(target: target), mode: 0o777, modified: modified).header)
            case .hardLink(let path, let target):
                var header = TarMember(path: path, kind: .hardLink(target: target), mode: 0, modified: 0).header
                _ = TarMember.dropUntold(from: &header)
                try add(header)
            case .directory(let path, let mode, let modified):
                directories.append(TarMember(path: path, kind: .directory, mode: mode, modified: modified))
            case .root: break
            }
        }
        for directory in directories.reversed() { try add(directory.header) }
        try add(TarMember.endMark)
        if current < stored.count || !waiting.isEmpty { throw Self.otherLast }
    }

    /// The tar inside must be exactly the one that these members make.
    private static func compare(
        _ bytes: UnsafeRawBufferPointer, with members: [FrameMember], limits: ExtractionLimits
    ) throws {
        var position = 0
        func differs(_ member: FrameMember) -> ArchiveError {
            .damaged("the tar inside is not the one that the manifest describes", entry: Printable.text(member.path))
        }
        func take(_ count: Int, of member: FrameMember) throws -> UnsafeRawBufferPointer {
            guard count >= 0, count <= bytes.count - position else { throw differs(member) }
            defer { position += count }
            return UnsafeRawBufferPointer(rebasing: bytes[position..<(position + count)])
        }
        for member in members {
            guard ExtractionPolicy.isPlain(member.path, limits: limits) else {
                throw ArchiveError.damaged("a name that no backup holds", entry: Printable.text(member.path))
            }
            guard member.count >= 0, member.fileOffset >= 0, member.fileOffset <= member.size - Int64(member.count)
            else {
                throw ArchiveError.damaged("a piece lies outside of its file", entry: Printable.text(member.path))
            }
            if member.fileOffset == 0 {
                let header = TarMember(
                    path: member.path, kind: .regular(size: member.size), mode: member.mode, modified: member.modified
                ).header
                guard try take(header.count, of: member).elementsEqual(header) else { throw differs(member) }
            }
            guard member.start == position else { throw differs(member) }
            _ = try take(member.count, of: member)
            if member.fileOffset + Int64(member.count) == member.size {
                guard try take(TarMember.padding(after: member.size), of: member).isAllZero else {
                    throw differs(member)
                }
            }
        }
        if position != bytes.count { throw ArchiveError.damaged("a frame holds more than the manifest describes") }
    }
}

extension ZstdFrameReader {
    /// Unpacks what is the frame that is meant, by its SHA-256.
    fileprivate func unpack(
        checked frame: FrameExtraction.Frame, _ bytes: UnsafeRawBufferPointer, into buffer: PackBuffer
    ) throws {
        guard Digest.sha256(whole: bytes) == frame.sha256 else {
            throw ArchiveError.damaged(
                "the frame at byte \(frame.offset) is not the one that was stored: its SHA-256 differs")
        }
        try unpack(bytes, size: frame.unpacked, into: buffer)
    }
}
