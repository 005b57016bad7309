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
        tree = try RawTree(making: scratch("site"))
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
    func expectWhole(_ key: String, _ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation) throws
    {
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
