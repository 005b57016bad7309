import Synchronization
import TestSupport
import Testing

@testable import Backups
@testable import HostSystem

/// An interrupted restore goes on, and only with what is its own.
struct FramedContinuationTests {
    private static func name(_ text: String) -> RawTree.Name { Array(text.utf8) }
    private var site: FramedSite
    private let key: String

    init() throws {
        site = try FramedSite()
        site.threads = 2
        var random = SeededGenerator(7)
        for number in 10..<40 {
            try site.tree.write(Self.name("f\(number)"), random.bytes(1_500_000), mode: 0o640)
            try site.tree.setTime(Self.name("f\(number)"), Int64(number) * 1_000_000_001)
        }
        try site.tree.write(Self.name("large"), random.bytes(13 << 20))
        try site.tree.makeDirectory(Self.name("d"))
        try site.tree.makeSymlink(Self.name("d/l"), to: Self.name("../f10"))
        try site.tree.makeLink(Self.name("d/h"), to: Self.name("f11"))
        try site.tree.setTime(Self.name("d"), 5)
        key = try site.create().key
    }

    private func interrupt(after frames: Int, into name: String) throws {
        let stop = StopFlag.bounded()
        let seen = Atomic<Int>(0)
        do {
            _ = try site.restore(key, into: name, journal: true, stop: stop) { _ in
                if seen.wrappingAdd(1, ordering: .relaxed).newValue == frames { stop.raise(signal: 15) }
            }
            Issue.record("it was not stopped")
        } catch StopReason.signal(15) {}
    }

    private func known(_ name: String) throws -> Set<Int> {
        let text = try FileReading.text(site.scratch("out/\(name).journal"), limit: 1 << 20)
        return Set(text.split(separator: "\n").dropFirst().compactMap { Int($0) })
    }

    private func expectWhole(_ restored: RawTree, sourceLocation: SourceLocation = #_sourceLocation) throws {
        #expect(
            RawTree.differences(try site.tree.nodes(), try restored.nodes()) == [], sourceLocation: sourceLocation)
        #expect(!Files.exists(restored.root + ".journal"), sourceLocation: sourceLocation)
    }

    @Test("stopped at many places, and run again", arguments: [1, 2, 5, 17, 29, 30, 31, 33, 34])
    func goesOn(_ frames: Int) throws {
        try interrupt(after: frames, into: "t")
        let contents = try ManifestTesting.Contents(try #require(site.store[BackupKey.manifest(of: key)]))
        let known = try known("t")
        let first = contents.frames.indices.first { !known.contains($0) } ?? 0
        site.store.forgetReads()
        let restored = try site.restore(key, into: "t", journal: true)
        try expectWhole(restored)
        #expect(site.store.opened.first == contents.frames[first].offset)
        let size = try #require(site.store[key]).count
        #expect(site.store.delivered <= size - Int(contents.frames[first].offset))
    }

    @Test("stopped again and again")
    func oftenStopped() throws {
        for frames in [4, 9, 15, 3, 22] { try interrupt(after: frames, into: "t") }
        try expectWhole(try site.restore(key, into: "t", journal: true))
    }

    @Test("pieces are written again, whatever is there of them")
    func pieces() throws {
        try interrupt(after: 33, into: "t")
        let place = RawTree(site.scratch("out/t"))
        if Files.exists(place.root + "/large") { try place.write(Self.name("large"), [1, 2, 3]) }
        try expectWhole(try site.restore(key, into: "t", journal: true))
    }

    @Test("what is no part of it begins anew", arguments: 0..<6)
    func anew(_ number: Int) throws {
        try interrupt(after: 20, into: "t")
        #expect(try known("t").count > 5)
        let place = site.scratch("out/t")
        let journal = place + ".journal"
        let text = try FileReading.text(journal, limit: 1 << 20)
        var site = site
        var key = key
        switch number {
        case 0:
            // Another backup.
            site.now += 60
            try site.tree.write(Self.name("f12"), [1])
            key = try site.create().key
        case 1:
            // Another boot.
            let words = text.split(separator: " ", maxSplits: 3).map(String.init)
            try AtomicFile.prepare(
                Array("\(words[0]) \(words[1]) 00000000-0000-0000-0000-000000000000 \(words[3])".utf8), at: journal,
                mode: 0o600)
        case 2: try Files.removeTree(place)
        case 3:
            try Files.removeTree(place)
            try Files.makeNewDirectory(place, mode: 0o700)
        case 4:
            try Files.rename(place, to: place + ".kept")
            try Files.makeNewDirectory(place, mode: 0o700)
            try site.scratch.write("out/t/something", "else")
        default: try AtomicFile.prepare([0xff, 0x00, 0x0a, 0x31, 0x0a], at: journal, mode: 0o600)
        }
        site.store.forgetReads()
        let restored = try site.restore(key, into: "t", journal: true)
        #expect(RawTree.differences(try site.tree.nodes(), try restored.nodes()) == [])
        #expect(site.store.opened.first == 0)
    }

    @Test("a line that was cut tells of no frame, now or later")
    func cutLine() throws {
        let place = site.scratch("out/j")
        try Files.makeDirectories(place)
        func open() throws -> FrameJournal { try FrameJournal(place + ".journal", identity: "x", directory: place) }
        do {
            let journal = try open()
            #expect(!journal.hasFrames)
            try site.scratch.write("out/j/f", "1")
            try journal.add(5)
        }
        let whole = try FileReading.text(place + ".journal", limit: 1000)
        #expect(whole.hasSuffix("\n5\n"))
        try AtomicFile.prepare(Array((whole + "12").utf8), at: place + ".journal", mode: 0o600)
        for _ in 0..<3 {
            let journal = try open()
            #expect(journal.contains(5) && !journal.contains(12) && !journal.contains(1))
            try journal.add(77)
        }
        #expect(try FileReading.text(place + ".journal", limit: 1000) == whole + "77\n77\n77\n")
        // A head that was cut.
        try AtomicFile.prepare(Array(whole.utf8.prefix(9)), at: place + ".journal", mode: 0o600)
        #expect(try !open().hasFrames)
        #expect(try Files.names(in: place) == [])
    }

    @Test("two at once")
    func busy() throws {
        let place = site.scratch("out/j")
        try Files.makeDirectories(site.scratch("out"))
        let journal = try FrameJournal(place + ".journal", identity: "x", directory: place)
        #expect(throws: FileLock.Busy.self) {
            try FrameJournal(place + ".journal", identity: "x", directory: place)
        }
        #expect(throws: FileLock.Busy.self) { try site.restore(key, into: "j", journal: true) }
        try journal.remove()
        // The file of that name is another one now.
        _ = try FrameJournal(place + ".journal", identity: "y", directory: place)
        withExtendedLifetime(journal) {}
    }
}
