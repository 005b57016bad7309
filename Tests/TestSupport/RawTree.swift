import Glibc
public import HostSystem

/// A tree whose names are bytes, as Linux has them. Every call throws `HostError`.
public struct RawTree: Sendable {
    public typealias Name = [UInt8]

    /// What lies at one name.
    public struct Node: Equatable, Sendable {
        public var kind: FileKind
        public var mode: UInt32
        /// Nanoseconds since 1970.
        public var modified: Int64
        /// Of a file, its SHA-256; of a symlink, its target.
        public var contents: [UInt8] = []
        public var size: Int64 = 0
        /// The first name of the same file, where it has several.
        public var group: Name?
    }

    public let root: String
    public init(_ root: String) { self.root = root }

    /// A new, empty one.
    public init(making root: String) throws {
        self.root = root
        try Files.makeNewDirectory(root, mode: 0o755)
    }

    public func at(_ path: Name) -> [CChar] {
        (Array(root.utf8) + [0x2f] + path).map { CChar(bitPattern: $0) } + [0]
    }

    private func check(_ result: CInt, _ call: String, _ path: Name) throws {
        if result != 0 { throw HostError(call, root + "/" + String(decoding: path, as: UTF8.self), errno: errno) }
    }

    public func write(_ path: Name, _ bytes: [UInt8], mode: UInt32 = 0o644) throws {
        let file = open(at(path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        if file < 0 { try check(-1, "open", path) }
        defer { close(file) }
        if !Host.write(bytes, descriptor: file) { try check(-1, "write", path) }
        try check(fchmod(file, mode), "fchmod", path)
    }

    public func makeDirectory(_ path: Name, mode: UInt32 = 0o755) throws {
        try check(mkdir(at(path), 0o700), "mkdir", path)
        try check(chmod(at(path), mode), "chmod", path)
    }

    public func makeSymlink(_ path: Name, to target: Name) throws {
        try check(symlink(target.map { CChar(bitPattern: $0) } + [0], at(path)), "symlink", path)
    }

    public func makeFIFO(_ path: Name) throws { try check(mkfifo(at(path), 0o644), "mkfifo", path) }

    public func makeLink(_ path: Name, to other: Name) throws { try check(link(at(other), at(path)), "link", path) }

    public func setTime(_ path: Name, _ nanoseconds: Int64) throws {
        var seconds = nanoseconds / 1_000_000_000
        var rest = nanoseconds % 1_000_000_000
        if rest < 0 { (seconds, rest) = (seconds - 1, rest + 1_000_000_000) }
        try setTime(path, seconds: seconds, nanoseconds: Int(rest))
    }

    public func setTime(_ path: Name, seconds: Int64, nanoseconds: Int) throws {
        let time = timespec(tv_sec: time_t(seconds), tv_nsec: nanoseconds)
        try check(utimensat(AT_FDCWD, at(path), [time, time], AT_SYMLINK_NOFOLLOW), "utimensat", path)
    }

    public func setMode(_ path: Name, _ mode: UInt32) throws { try check(chmod(at(path), mode), "chmod", path) }

    public func rename(_ path: Name, to other: Name) throws {
        try check(Glibc.rename(at(path), at(other)), "rename", path)
    }

    /// A file, a symlink, or a directory with all below it.
    public func remove(_ path: Name) throws {
        if unlink(at(path)) == 0 { return }
        for name in try names(path) { try remove(path + [0x2f] + name) }
        try check(rmdir(at(path)), "rmdir", path)
    }

    public func bytes(_ path: Name) throws -> [UInt8] {
        let file = open(at(path), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        if file < 0 { try check(-1, "open", path) }
        defer { close(file) }
        var result: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = read(file, &piece, piece.count)
            if count < 0 { try check(-1, "read", path) }
            if count == 0 { return result }
            result += piece[..<count]
        }
    }

    public func names(_ path: Name) throws -> [Name] {
        guard let stream = opendir(at(path)) else {
            try check(-1, "opendir", path)
            return []
        }
        defer { closedir(stream) }
        var result: [Name] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
            if name != [0x2e] && name != [0x2e, 0x2e] { result.append(name) }
        }
        return result.sorted { $0.lexicographicallyPrecedes($1) }
    }

    /// Everything below the root.
    public func nodes() throws -> [Name: Node] {
        var result: [Name: Node] = [:]
        var groups: [UInt64: Name] = [:]
        func visit(_ directory: Name) throws {
            for name in try names(directory) {
                let path = directory.isEmpty ? name : directory + [0x2f] + name
                var raw = stat()
                try check(lstat(at(path), &raw), "lstat", path)
                let time = Int64(raw.st_mtim.tv_sec).multipliedReportingOverflow(by: 1_000_000_000).partialValue
                var node = Node(
                    kind: .other, mode: raw.st_mode & 0o7777,
                    modified: time &+ Int64(raw.st_mtim.tv_nsec))
                switch raw.st_mode & S_IFMT {
                case S_IFREG:
                    node.kind = .regular
                    node.size = Int64(raw.st_size)
                    node.contents = Digest.sha256(try bytes(path))
                    if raw.st_nlink > 1 {
                        let inode = UInt64(raw.st_ino)
                        if groups[inode] == nil { groups[inode] = path }
                        node.group = groups[inode]
                    }
                case S_IFLNK:
                    node.kind = .symlink
                    var target = [CChar](repeating: 0, count: 4096)
                    let count = readlink(at(path), &target, target.count)
                    node.contents = target.prefix(max(0, count)).map { UInt8(bitPattern: $0) }
                case S_IFDIR:
                    node.kind = .directory
                default: break
                }
                result[path] = node
                if node.kind == .directory { try visit(path) }
            }
        }
        try visit([])
        return result
    }

    /// What differs between two trees, for a message: nothing where they are equal.
    public static func differences(_ wanted: [Name: Node], _ found: [Name: Node]) -> [String] {
        var result: [String] = []
        for path in Set(wanted.keys).union(found.keys) where wanted[path] != found[path] {
            func text(_ node: Node?) -> String {
                guard let node else { return "absent" }
                return "\(node.kind) \(String(node.mode, radix: 8)) \(node.modified) \(node.size) "
                    + "\(node.contents.prefix(4)) \(node.group.map { Printable.text($0) } ?? "-")"
            }
            result.append("\(Printable.text(path)): \(text(wanted[path])) became \(text(found[path]))")
        }
        return Array(result.sorted().prefix(8))
    }
}

extension [RawTree.Name: RawTree.Node] {
    /// As plain tar keeps it: whole seconds.
    public var inWholeSeconds: Self {
        mapValues {
            var node = $0
            let rest = node.modified % 1_000_000_000
            node.modified -= rest < 0 ? rest + 1_000_000_000 : rest
            return node
        }
    }

    /// As amorce restores it with `keepsModes`: no set-id and sticky bits.
    public var withPlainModes: Self {
        mapValues {
            var node = $0
            if node.kind != .symlink { node.mode &= 0o777 }
            return node
        }
    }
}
