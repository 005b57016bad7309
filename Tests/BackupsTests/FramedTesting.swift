import HostSystem
import TestSupport
import Testing

@testable import Backups

/// A tree, a store, and backups of the one in the other.
struct FramedSite {
    let scratch: ScratchDirectory
    let store: MemoryStore
    let tree: RawTree
    var now: Int64 = 1_795_000_000
    var app = "shop"
    var environment = "test"
    var threads = 3

    init(_ store: MemoryStore = MemoryStore()) throws {
        scratch = try ScratchDirectory()
        self.store = store
        tree = RawTree(scratch("site"))
        try Files.makeNewDirectory(tree.root, mode: 0o755)
    }

    func options(full: Bool = false) -> CreateBackup.Options {
        var options = CreateBackup.Options(
            app: app, environment: environment, madeBy: "a test", threads: threads, connections: 2, now: now)
        options.isFull = full
        return options
    }

    @discardableResult
    func create(
        full: Bool = false, prefix: String = "p/", stop: StopFlag = .bounded(),
        progress: @escaping ProgressHandler = { _ in }
    ) throws -> CreateBackup.Result {
        try CreateBackup(store: store, log: .silent).create(
            from: SourceTree(tree.root), prefix: prefix, options: options(full: full), stop: stop, progress: progress)
    }

    /// Into a new folder; the caller need not remove it.
    func restore(
        _ key: String, into name: String = "restored", journal: Bool = false, stop: StopFlag = .bounded(),
        limits: ExtractionLimits = ExtractionLimits(), progress: @escaping ProgressHandler = { _ in }
    ) throws -> RawTree {
        let directory = scratch("out/" + name)
        if !journal {
            try Files.removeTree(directory)
            try Files.makeDirectories(directory)
            try Files.changeMode(directory, 0o700)
        } else {
            try Files.makeDirectories(scratch("out"))
        }
        var options = RestoreArchive.Options(limits: limits)
        options.keepsModes = true
        options.threads = threads
        if journal { options.journal = scratch("out/\(name).journal") }
        let object = try #require(try store.stat(key: key, stop: .bounded()))
        _ = try RestoreArchive(store: store, log: .silent)
            .restore(object, into: directory, options: options, stop: stop, progress: progress)
        return RawTree(directory)
    }

    func verify(_ key: String) throws -> RestoreArchive.Result {
        let object = try #require(try store.stat(key: key, stop: .bounded()))
        return try BackupReader(store: store).verify(
            object, threads: threads, memory: ByteCount(1 << 20), stop: .bounded(), progress: { _ in })
    }

    /// As anybody restores it who has no amorce.
    func untar(_ key: String) throws -> RawTree {
        let directory = scratch("out/plain")
        try Files.removeTree(directory)
        try Files.makeDirectories(directory)
        let bytes = try #require(store[key])
        try scratch.write("out/object", bytes)
        try Program.check([
            "bash", "-c", "set -o pipefail; zstd -qdc \"$0\" | tar -xpf - -C \"$1\"", scratch("out/object"), directory,
        ])
        return RawTree(directory)
    }

    /// What a restore must give.
    func expectWhole(_ key: String, _ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let wanted = try tree.nodes()
        let restored = try restore(key).nodes()
        #expect(
            RawTree.differences(wanted.withPlainModes, restored) == [], comment, sourceLocation: sourceLocation)
        let plain = try untar(key).nodes()
        #expect(
            RawTree.differences(wanted.inWholeSeconds, plain.inWholeSeconds) == [], comment,
            sourceLocation: sourceLocation)
        let verified = try verify(key)
        #expect(
            verified.files == wanted.values.count { $0.kind == .regular } - Self.laterLinks(wanted), comment,
            sourceLocation: sourceLocation)
    }

    private static func laterLinks(_ nodes: [RawTree.Name: RawTree.Node]) -> Int {
        nodes.count { $0.value.group != nil && $0.value.group != $0.key }
    }

    /// The unpacked text of a manifest: its head and the rest, each a frame of its own.
    func manifest(_ key: String) throws -> [UInt8] {
        let packed = try #require(store[BackupKey.manifest(of: key)])
        return try Program.check(["zstd", "-qdc", scratch.write("out/packed", packed)])
    }
}

/// Makes trees and changes them, by a seed.
struct RandomTree {
    let tree: RawTree
    var random: SeededGenerator
    private var counter = 0
    /// Whether files of several MiB are made.
    var hasLarge = true

    init(_ tree: RawTree, seed: UInt64) {
        self.tree = tree
        random = SeededGenerator(seed)
    }

    mutating func name() -> RawTree.Name {
        counter += 1
        let odd: [[UInt8]] = [
            Array("plain.txt".utf8), Array("two words".utf8), [0x0a], [0x09, 0x25], Array("%41".utf8),
            [0xe9, 0x74, 0xe9], Array("é日本".utf8), [0x01, 0x7f, 0xff], Array("-rf".utf8), Array("photo.jpg".utf8),
            [UInt8](repeating: 0x6e, count: 60 + random.below(180)), Array("a\\b\"c'".utf8), Array("...".utf8),
        ]
        return (odd.randomElement(using: &random) ?? []) + Array("\(counter)".utf8)
    }

    mutating func time() -> Int64 {
        let seconds = random.oneIn(12) ? -Int64(random.below(1_000_000_000)) : Int64(random.below(1_700_000_000))
        return seconds * 1_000_000_000 + Int64(random.below(1_000_000_000))
    }

    mutating func size() -> Int {
        let edges = [
            0, 1, 511, 512, 513, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9 << 20,
        ]
        switch random.below(10) {
        case 0 where hasLarge: return edges.randomElement(using: &random) ?? 0
        case 1, 2: return edges[random.below(5)]
        case 3: return random.below(200_000)
        default: return random.below(3000)
        }
    }

    mutating func mode() -> UInt32 {
        [0o644, 0o600, 0o755, 0o444, 0o000, 0o4755, 0o2640, 0o1777, 0o777].randomElement(using: &random) ?? 0o644
    }

    mutating func writeFile(_ path: RawTree.Name) throws {
        let bytes = random.bytes(size())
        try tree.write(path, bytes, mode: mode())
        try tree.setTime(path, time())
    }

    private func inside(_ directory: RawTree.Name, _ name: RawTree.Name) -> RawTree.Name {
        directory.isEmpty ? name : directory + [0x2f] + name
    }

    mutating func make(files: Int) throws {
        for _ in 0..<files { try change() }
        var sized = hasLarge ? [0, (2 << 20) - 1, (2 << 20) + 1, (4 << 20) - 1, (4 << 20) + 1, 11 << 20] : [0]
        while let size = sized.popLast() {
            let path = name()
            try tree.write(path, random.bytes(size))
            try tree.setTime(path, time())
        }
        try settleTimes()
    }

    /// Directories change whenever something in them does: their times are set last.
    mutating func settleTimes() throws {
        for (path, node) in try tree.nodes().sorted(by: { $1.key.lexicographicallyPrecedes($0.key) })
        where node.kind == .directory { try tree.setTime(path, time()) }
    }

    /// One random change.
    mutating func change() throws {
        let nodes = try tree.nodes()
        let paths = nodes.keys.sorted { $0.lexicographicallyPrecedes($1) }
        let files = paths.filter { nodes[$0]?.kind == .regular }
        let directories = paths.filter { nodes[$0]?.kind == .directory && $0.count < 600 } + [[]]
        let directory = directories.randomElement(using: &random) ?? []
        let new = inside(directory, name())
        switch random.below(16) {
        case 0, 1: try tree.makeDirectory(new, mode: [0o755, 0o700, 0o555, 0o1777, 0o000].randomElement(using: &random) ?? 0)
        case 2:
            try tree.makeSymlink(new, to: name())
            try tree.setTime(new, time())
        case 3:
            if let file = files.randomElement(using: &random) { try tree.makeLink(new, to: file) }
        case 4:
            // A hard link is broken: the same bytes, another file.
            if let file = files.randomElement(using: &random), let node = nodes[file] {
                let bytes = try tree.bytes(file)
                try tree.remove(file)
                try tree.write(file, bytes, mode: node.mode)
                try tree.setTime(file, node.modified)
            }
        case 5: if let file = files.randomElement(using: &random) { try tree.setTime(file, time()) }
        case 6: if let file = files.randomElement(using: &random) { try tree.setMode(file, mode()) }
        case 7:
            if files.count > 3, let path = paths.randomElement(using: &random), nodes[path]?.kind != .directory {
                try tree.remove(path)
            }
        case 8:
            // A file or a folder gets another name.
            if let path = paths.randomElement(using: &random), !directory.starts(with: path) {
                try tree.rename(path, to: new)
            }
        case 9:
            // Another kind takes the name.
            if files.count > 3, let path = paths.randomElement(using: &random), let kind = nodes[path]?.kind {
                if kind == .directory && paths.count(where: { $0.starts(with: path + [0x2f]) }) > 6 { return }
                try tree.remove(path)
                switch (kind, random.below(2)) {
                case (.regular, 0): try tree.makeSymlink(path, to: name())
                case (.regular, _), (.symlink, 0): try tree.makeDirectory(path)
                default: try writeFile(path)
                }
            }
        case 10, 11:
            // Another content, sometimes of the same size.
            if let file = files.randomElement(using: &random), let node = nodes[file] {
                let count = random.oneIn(2) ? Int(node.size) : size()
                try tree.write(file, random.bytes(count), mode: node.mode)
                try tree.setTime(file, time())
            }
        default: try writeFile(new)
        }
    }
}
