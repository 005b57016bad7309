import HostSystem
import TestSupport
import Testing

@testable import Backups

/// Backups that take over what an earlier one has.
struct FramedIncrementTests {
    private static func name(_ text: String) -> RawTree.Name { Array(text.utf8) }

    @Test(
        "a long sequence of changes", arguments: [(1, 11), (64 << 10, 12), (1, 13), (300_000, 14)] as [(Int64, UInt64)])
    func sequence(_ smallest: Int64, _ seed: UInt64) throws {
        let rules = PartRules(smallest: smallest, largest: 1 << 40, most: 10_000)
        var site = try FramedSite(MemoryStore(rules: rules))
        var random = RandomTree(site.tree, seed: seed)
        random.hasLarge = seed != 13
        try random.make(files: 50)
        var copied = 0
        for step in 0..<(seed == 13 ? 40 : 14) {
            for _ in 0..<(1 + random.random.below(6)) { try random.change() }
            try random.settleTimes()
            site.now += 60
            let made = try site.create()
            if made.copiedFrom != nil { copied += 1 }
            #expect(made.copied + made.sent == made.size + made.manifestSize)
            try site.expectWhole(made.key, "seed \(seed), step \(step)")
            // What is older is not needed.
            if step.isMultiple(of: 3) {
                for key in site.store.keys where !key.hasPrefix(made.key) { site.store[key] = nil }
            }
        }
        #expect(copied > 0)
    }

    @Test("little is sent where little has changed, and pruning the earlier ones changes nothing")
    func little() throws {
        var site = try FramedSite()
        var random = SeededGenerator(5)
        for number in 0..<60 {
            try site.tree.write(Self.name("f\(number)"), random.bytes(100_000))
            try site.tree.setTime(Self.name("f\(number)"), 1_000_000_000)
        }
        try site.tree.write(Self.name("large"), random.bytes(9 << 20))
        try site.tree.setTime(Self.name("large"), 1_000_000_000)
        let first = try site.create()
        #expect(first.copied == 0 && first.copiedFrom == nil)
        site.now += 60
        let same = try site.create()
        #expect(same.copiedFrom == first.key && same.sent < 10_000)
        try site.tree.write(Self.name("f7"), random.bytes(100_000))
        site.now += 60
        let changed = try site.create()
        #expect(changed.copiedFrom == same.key && changed.sent < 200_000)
        for key in [first.key, same.key] {
            site.store[key] = nil
            site.store[BackupKey.manifest(of: key)] = nil
        }
        try site.expectWhole(changed.key)
        site.now += 60
        let full = try site.create(full: true)
        #expect(full.copied == 0 && full.copiedFrom == nil)
    }

    @Test("a frame of nothing but replaced small files is given up")
    func deadFrames() throws {
        var site = try FramedSite()
        func write(_ time: Int64) throws {
            for number in 0..<200 {
                try site.tree.write(Self.name("f\(number)"), Array("\(time)".utf8))
                try site.tree.setTime(Self.name("f\(number)"), time * 1_000_000_000)
            }
        }
        try site.tree.write(Self.name("kept.jpg"), [UInt8](repeating: 7, count: 5000))
        try site.tree.setTime(Self.name("kept.jpg"), 1_000_000_000)
        var sizes: [Int] = []
        for step in 0..<6 {
            try write(1_000_000_000 + Int64(step))
            site.now += 60
            let made = try site.create()
            sizes.append(try site.untarredSize(made.key))
            try site.expectWhole(made.key)
        }
        #expect(sizes.last == sizes.first)
    }

    @Test("a file that was changed within the second of the backup")
    func racy() throws {
        var site = try FramedSite()
        let file = Self.name("racy")
        try site.tree.write(Self.name("site"), [1])
        for (step, offset) in [Int64(0), -1, -2].enumerated() {
            try site.tree.write(file, Array("old\(step)".utf8))
            try site.tree.setTime(file, (site.now + offset) * 1_000_000_000)
            try site.create()
            // Ansite content of the same size and time.
            try site.tree.write(file, Array("new\(step)".utf8))
            try site.tree.setTime(file, (site.now + offset) * 1_000_000_000)
            site.now += 60
            let made = try site.create()
            #expect(try site.restore(made.key).bytes(file) == Array("new\(step)".utf8))
            site.now += 60
        }
    }

    @Test("an earlier backup that is another's, or no use", arguments: 0..<7)
    func useless(_ number: Int) throws {
        var site = try FramedSite()
        for number in 0..<3 {
            try site.tree.write(Self.name("f\(number)"), [UInt8](repeating: 1, count: 1000))
            try site.tree.setTime(Self.name("f\(number)"), 1_000_000_000)
        }
        let first = try site.create()
        let manifest = BackupKey.manifest(of: first.key)
        switch number {
        case 0: site.app = "another"
        case 1: site.environment = "another"
        case 2: site.store[manifest] = nil
        case 3: site.store[manifest]?[200] ^= 1
        case 4: site.store[manifest]?.removeLast(20)
        case 5: site.store[first.key]?.append(0)
        default: site.store[first.key] = nil
        }
        site.now += 60
        let made = try site.create()
        #expect(made.copied == 0 && made.copiedFrom == nil)
        try site.expectWhole(made.key)
    }

    @Test("the earlier backup goes while it is copied", arguments: 0..<2)
    func gone(_ copies: Int) throws {
        var site = try FramedSite()
        var random = SeededGenerator(9)
        for number in 0..<6 {
            try site.tree.write(Self.name("f\(number)"), random.bytes(1 << 20))
            try site.tree.setTime(Self.name("f\(number)"), 1_000_000_000)
        }
        try site.create()
        try site.tree.remove(Self.name("f2"))
        site.now += 60
        site.store.copiesUntilGone(copies)
        let made = try site.create()
        #expect(made.copied == 0 && made.copiedFrom == nil)
        try site.expectWhole(made.key)
        #expect(site.store.keys.contains(BackupKey.manifest(of: made.key)))
    }

    @Test("no more parts are copied than an upload may have")
    func manyRuns() throws {
        var site = try FramedSite(MemoryStore(rules: PartRules(smallest: 1, largest: 1 << 40, most: 10)))
        var random = SeededGenerator(3)
        for number in 10..<70 {
            try site.tree.write(Self.name("f\(number)"), random.bytes(1_100_000))
            try site.tree.setTime(Self.name("f\(number)"), 1_000_000_000)
        }
        try site.create()
        for number in stride(from: 10, to: 70, by: 2) { try site.tree.setTime(Self.name("f\(number)"), 5) }
        site.now += 60
        let made = try site.create()
        _ = try site.verify(made.key)
    }
}

extension FramedSite {
    func untarredSize(_ key: String) throws -> Int {
        try Program.check(["zstd", "-qdc", scratch.write("out/packed", try #require(store[key]))]).count
    }
}
