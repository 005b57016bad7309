import HostSystem
import TestSupport
import Testing

@testable import Backups

/// Whatever a tree holds comes back, by amorce and by plain tar.
struct FramedRoundTripTests {
    @Test("random trees", arguments: 0..<6)
    func trees(_ seed: Int) throws {
        let site = try FramedSite()
        var random = RandomTree(site.tree, seed: UInt64(seed))
        random.hasLarge = seed.isMultiple(of: 2)
        try random.make(files: 60)
        let made = try site.create()
        let nodes = try site.tree.nodes()
        #expect(made.files + made.links + made.directories == nodes.count)
        #expect(made.vanished == 0 && made.changed == [] && made.leadingOut == [])
        #expect(made.size == Int64(site.store[made.key]?.count ?? 0))
        #expect(made.manifestSize == Int64(site.store[BackupKey.manifest(of: made.key)]?.count ?? 0))
        try site.expectWhole(made.key)
    }

    @Test("the root's own time")
    func rootTime() throws {
        let site = try FramedSite()
        try site.tree.write(Array("f".utf8), [1])
        try site.tree.setTime([0x2e], -1_234_567_890_123)
        let restored = try site.restore(try site.create().key)
        #expect(try Files.status(restored.root)?.modified == -1_234_567_890_123)
    }

    @Test(
        "times that no count of nanoseconds holds",
        arguments: [Int64(1) << 40, -(1 << 40), 9_223_372_037, -9_223_372_037])
    func farTimes(_ seconds: Int64) throws {
        // A file system that keeps such times; where it does not, there is nothing to see.
        let site = try FramedSite()
        for (name, isDirectory) in [("f", false), ("d", true)] {
            if isDirectory {
                try site.tree.makeDirectory(Array(name.utf8))
            } else {
                try site.tree.write(Array(name.utf8), [1])
            }
            try site.tree.setTime(Array(name.utf8), seconds: seconds, nanoseconds: 999_999_999)
        }
        try site.tree.setTime([0x2e], seconds: seconds, nanoseconds: 1)
        let made = try site.create()
        _ = try site.verify(made.key)
        #expect(try site.restore(made.key).bytes(Array("f".utf8)) == [1])
    }

    @Test("files of the sizes at which a frame or a piece ends", arguments: [2 << 20, 4 << 20, 8 << 20])
    func edges(_ size: Int) throws {
        let site = try FramedSite()
        var random = SeededGenerator(UInt64(size))
        for step in [-512, -511, -1, 0, 1, 511, 512] {
            let name = Array("\(step)".utf8)
            try site.tree.write(name, random.bytes(size + step))
            try site.tree.setTime(name, Int64(step) * 1_000_000_000)
        }
        try site.expectWhole(try site.create().key)
    }

    @Test("a symlink that leads out is left out, and said to be")
    func leadingOut() throws {
        let site = try FramedSite()
        try site.tree.write(Array("f".utf8), [1])
        try site.tree.makeSymlink(Array("out".utf8), to: Array("../x".utf8))
        let made = try site.create()
        #expect(made.leadingOut == ["out"] && made.links == 0)
        #expect(try site.restore(made.key).names([]) == [Array("f".utf8)])
        _ = try site.verify(made.key)
    }

    @Test("a tree without a file")
    func empty() throws {
        let site = try FramedSite()
        try site.tree.makeDirectory(Array("d".utf8))
        #expect(throws: CreateBackup.Empty.self) { try site.create() }
        #expect(site.store.keys == [])
    }

    @Test("nothing is replaced")
    func conflict() throws {
        let site = try FramedSite()
        try site.tree.write(Array("f".utf8), [1])
        let made = try site.create()
        let before = site.store[made.key]
        // Of the same second: the next seconds' names are taken, a few at the most.
        let keys = try (0..<5).map { _ in try site.create().key }
        #expect(Set(keys + [made.key]).count == 6 && keys == keys.sorted())
        #expect(throws: StoreConflict.self) { try site.create() }
        #expect(site.store[made.key] == before && site.store.keys.count == 12)
    }
}
