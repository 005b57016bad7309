/// Why an archive is not unpacked, or not to its end. Entry names are already printable.
public enum ArchiveError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The first bytes are not those of the format that the name promises.
    case wrongFormat(expected: String, looksLike: String)
    /// Truncated, a failed check, bytes behind the end, a header that makes no sense.
    case damaged(String, entry: String? = nil)
    /// An entry that would leave the directory, or is nothing that a site consists of.
    case refused(RefusedEntry, entry: String)
    /// Larger than a limit allows, whether a mistake or a bomb.
    case limit(ExtractionLimit, entry: String? = nil)
    /// Well formed, but written with something that is not read here: a compression method, encryption, a window too large.
    case unsupported(String, entry: String? = nil)
    /// The unpacked files do not fit on the file system.
    case noRoom(needed: ByteCount, available: ByteCount)
    case noInodes(needed: Int64, available: Int64)
    /// All of it was read, but it is not what was to be read.
    case checksumMismatch(expected: String, actual: String)

    public var entry: String? {
        switch self {
        case .damaged(_, let entry), .limit(_, let entry), .unsupported(_, let entry): entry
        case .refused(_, let entry): entry
        case .wrongFormat, .noRoom, .noInodes, .checksumMismatch: nil
        }
    }

    public var reason: String {
        switch self {
        case .wrongFormat(let expected, let looksLike): "named as \(expected), but it looks like \(looksLike)"
        case .damaged(let text, _): text
        case .refused(let why, _): why.description
        case .limit(let limit, _): limit.description
        case .unsupported(let text, _): text
        case .noRoom(let needed, let available): "needs \(needed), and \(available) are free"
        case .noInodes(let needed, let available): "needs \(needed) inodes, and \(available) are free"
        case .checksumMismatch(let expected, let actual): "its SHA-256 is \(actual), and should be \(expected)"
        }
    }

    public var description: String { entry.map { "\(reason) (entry \($0))" } ?? reason }
}

/// What an entry is refused for.
public enum RefusedEntry: Sendable, Equatable, CustomStringConvertible {
    case emptyName
    case absoluteName
    case parentInName
    case specialFile(String)
    case emptyLinkTarget
    case absoluteLinkTarget
    case linkOutside
    case hardLinkToNoEarlierFile
    case hardLinkWithData
    case throughSymlink
    case throughFile
    case changesKind(from: String, to: String)
    case duplicate
    case namesDisagree

    public var description: String {
        switch self {
        case .emptyName: "the entry has no name"
        case .absoluteName: "the name is absolute"
        case .parentInName: "the name contains .."
        case .specialFile(let kind): "a \(kind) is no part of a site"
        case .emptyLinkTarget: "the link has no target"
        case .absoluteLinkTarget: "the symlink's target is absolute, so it would point out of the release"
        case .linkOutside: "the symlink points out of the directory"
        case .hardLinkToNoEarlierFile: "the hard link's target is no earlier regular file of the archive"
        case .hardLinkWithData: "the hard link carries data of its own"
        case .throughSymlink: "the path leads through a symlink"
        case .throughFile: "the path leads through a file"
        case .changesKind(let old, let new): "the name was a \(old) earlier in the archive and is now a \(new)"
        case .duplicate: "the name occurs twice"
        case .namesDisagree: "the central directory and the entry's own header give different names"
        }
    }
}

/// Which limit an archive exceeds.
public enum ExtractionLimit: Sendable, Equatable, CustomStringConvertible {
    case entries(Int)
    case bytes(ByteCount)
    case ratio(Int)
    case nameLength(Int)
    case pathLength(Int)
    case depth(Int)
    case linkLength(Int)
    case directorySize(ByteCount)

    public var description: String {
        switch self {
        case .entries(let limit): "more than \(limit) entries"
        case .bytes(let limit): "more than \(limit) when unpacked"
        case .ratio(let limit): "unpacks to more than \(limit) times its size"
        case .nameLength(let limit): "a name of more than \(limit) bytes"
        case .pathLength(let limit): "a path of more than \(limit) bytes"
        case .depth(let limit): "directories more than \(limit) deep"
        case .linkLength(let limit): "a link target of more than \(limit) bytes"
        case .directorySize(let limit): "a table of contents of more than \(limit)"
        }
    }
}

/// Bounds on what one archive may make. The defaults hold any real site and stop a bomb before it fills a disk.
public struct ExtractionLimits: Sendable, Equatable {
    public var entries = 5_000_000
    /// Sizes as the entries state them, holes of sparse files included.
    public var bytes = ByteCount(512 << 30)
    /// Unpacked to packed bytes, looked at beyond `ratioFreeBytes`. gzip reaches 1032 at most; sites and dumps stay below 30.
    public var ratio = 200
    public var ratioFreeBytes = ByteCount(64 << 20)
    /// NAME_MAX of Linux's file systems.
    public var nameLength = 255
    /// PATH_MAX without its NUL.
    public var pathLength = 4095
    public var depth = 256
    /// Of a zip file's central directory, which is held in memory.
    public var directorySize = ByteCount(256 << 20)

    public init() {}
}
