import Glibc
import HostSystem
import TestSupport
import Testing

@Suite struct TreeCloneTests {
    let scratch: ScratchDirectory

    init() throws {
        scratch = try ScratchDirectory()
        try scratch.write("site/a/plain.txt", "plain\n", mode: 0o640)
        try scratch.write("site/a/odd \u{e9}\n.txt", "odd\n")
        try scratch.write("site/var/cache/state.db", "state\n")
        try Files.symlink(target: "plain.txt", at: scratch("site/a/link"))
        try Files.makeDirectories(scratch("site/locked"), mode: 0o555)
        try Program.check(["mkfifo", scratch("site/a/fifo")])
        for path in ["site/a/plain.txt", "site/a/link", "site/a", "site"] {
            try Program.check(["touch", "-h", "-d", "2025-01-02T03:04:05Z", scratch(path)])
        }
    }

    func clone(copied: [String] = [], excluded: [String] = []) throws -> TreeClone.Result {
        try TreeClone.make(
            from: scratch("site"), to: scratch("copy"), copied: copied, excluded: excluded, stop: StopFlag())
    }

    @Test func itIsTheSameTree() throws {
        let result = try clone()
        #expect(result.files == 3 && result.links == 1)
        // rsync is the judge: with times and modes, nothing differs but the FIFO, which is no part of a release.
        let differences = try Program.check([
            "rsync", "-an", "--no-D", "--checksum", "--delete", "--out-format=%i %n", scratch("site") + "/",
            scratch("copy") + "/",
        ])
        #expect(
            String(decoding: differences, as: UTF8.self).split(separator: "\n").filter { !$0.contains("fifo") } == [])
        #expect(!Files.exists(scratch("copy/a/fifo")))
    }

    @Test func whatProgramsWriteInPlaceHasBytesOfItsOwn() throws {
        _ = try clone(copied: ["var/cache"])
        let first = try #require(try Files.status(scratch("site/var/cache/state.db")))
        let second = try #require(try Files.status(scratch("copy/var/cache/state.db")))
        #expect(first.inode != second.inode)
        try AtomicFile.append(Array("more\n".utf8), to: scratch("copy/var/cache/state.db"), mode: 0o644)
        #expect(try FileReading.text(scratch("site/var/cache/state.db"), limit: 100) == "state\n")
    }

    @Test func excludedPathsAreLeftOut() throws {
        _ = try clone(excluded: ["var"])
        #expect(!Files.exists(scratch("copy/var")) && Files.exists(scratch("copy/a/plain.txt")))
    }

    @Test func anExistingTargetIsRefused() throws {
        try Files.makeDirectories(scratch("copy"))
        #expect(throws: HostError.self) { try clone() }
    }

    @Test func aStopEndsIt() throws {
        let stop = StopFlag()
        stop.raise(signal: SIGTERM)
        #expect(throws: StopReason.signal(SIGTERM)) {
            try TreeClone.make(from: scratch("site"), to: scratch("copy"), stop: stop)
        }
    }
}
