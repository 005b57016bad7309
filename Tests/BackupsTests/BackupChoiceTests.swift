import HostSystem
import TestSupport
import Testing

@testable import Backups

struct NameStampTests {
    @Test(
        "stamps",
        arguments: [
            ("20261124T030000Z", 1_795_489_200, true), ("20261124-030000", 1_795_489_200, true),
            ("20261124_030000", 1_795_489_200, true), ("20261124030000", 1_795_489_200, true),
            ("202611240300", 1_795_489_200, true), ("20261124T0300Z", 1_795_489_200, true),
            ("2026-11-24T03-00-00", 1_795_489_200, true), ("2026-11-24T03:00:00Z", 1_795_489_200, true),
            ("2026-11-24_03.00.00", 1_795_489_200, true), ("2026-11-24-0300", 1_795_489_200, true),
            ("2026-11-24", 1_795_478_400, false), ("20261124", 1_795_478_400, false),
            ("boutique-v20240101-20261124T030000Z", 1_795_489_200, true),
            ("boutique_2026-11-24_full", 1_795_478_400, false),
            ("2024-02-29", 1_709_164_800, false), ("app-20261124-12", 1_795_478_400, false),
            ("20261124T250000Z", 1_795_478_400, false),
        ])
    func recognised(_ name: String, _ seconds: Int64, _ hasTime: Bool) throws {
        let stamp = try #require(NameStamp(in: name))
        #expect(stamp.seconds == seconds && stamp.hasTime == hasTime)
    }

    @Test(
        "no stamps",
        arguments: [
            "", "site", "1764000000", "2026", "2026-13-01", "2025-02-29", "20261301", "123456789", "202611241",
            "19991231", "v1.2.3",
            "2026-1-2", "build-20269999",
        ])
    func notRecognised(_ name: String) { #expect(NameStamp(in: name) == nil) }
}

struct BackupChoiceTests {
    static let now: Int64 = 1_795_492_800  // 2026-11-24T04:00:00Z

    static func object(_ name: String, size: Int64? = 100, modified: Int64? = now - 60) -> StoredObject {
        StoredObject(key: "b/" + name, size: size, modified: modified)
    }

    static func keys(_ objects: [StoredObject], within: Duration? = nil) throws -> [String] {
        try BackupChoice.newest(in: objects, prefix: "b/", now: now, newestWithin: within).map {
            String($0.object.key.dropFirst(2))
        }
    }

    @Test("the stamp in the name beats the order of the listing and of the uploads")
    func stamps() throws {
        let found = try Self.keys([
            Self.object("20261122T030000Z.tar.zst", modified: Self.now),
            Self.object("20261124T030000Z.tar.zst", modified: 5),
            Self.object("20261123T030000Z.tar.gz"),
        ])
        #expect(found == ["20261124T030000Z.tar.zst", "20261123T030000Z.tar.gz", "20261122T030000Z.tar.zst"])
    }

    @Test("without a stamp the store's time counts; equal times: the greater key")
    func modified() throws {
        let objects = [
            Self.object("a.tar", modified: Self.now - 10), Self.object("c.zip", modified: Self.now - 10),
            Self.object("b.tgz", modified: Self.now - 5), Self.object("z.tar", modified: nil),
        ]
        #expect(try Self.keys(objects) == ["b.tgz", "c.zip", "a.tar"])
        #expect(try Self.keys(objects.reversed()) == ["b.tgz", "c.zip", "a.tar"])
    }

    @Test("a date alone is refined by the store's time of that day; a stamp of the future is not believed")
    func dates() throws {
        let refined = try BackupChoice.newest(
            in: [Self.object("2026-11-24.tar", modified: Self.now - 7)], prefix: "b/", now: Self.now, newestWithin: nil)
        #expect(refined.first?.time == Self.now - 7)
        let future = try Self.keys([
            Self.object("20991231T000000Z.tar", modified: Self.now - 9999), Self.object("20261124T030000Z.tar"),
        ])
        #expect(future == ["20261124T030000Z.tar", "20991231T000000Z.tar"])
    }

    static let foreign: [(String, Int64?, BackupChoice.Skipped.Reason)] = [
        ("20261124T030000Z.tar.zst.part", 9, .unfinishedName), ("20261124T030000Z.tar.zst.tmp", 9, .unfinishedName),
        ("20261124T030000Z.tar.zst.1a2b3c.partial", 9, .unfinishedName),
        (".20261124T030000Z.tar.zst", 9, .unfinishedName),
        ("x.part.tar.gz", 9, .unfinishedName), ("x.tar.gz~", 9, .unfinishedName),
        ("x.tar.gz.6eF5b5da", 9, .noArchiveName),
        ("x.tar.gz.crdownload", 9, .unfinishedName), ("x.sql", 9, .noArchiveName), ("x.7z", 9, .noArchiveName),
        ("x.tar.gz", 0, .empty), ("old/x.tar.gz", 9, .deeper), ("", 0, .noArchiveName),
    ]

    @Test("names that are passed over", arguments: foreign)
    func passedOver(_ row: (name: String, size: Int64?, reason: BackupChoice.Skipped.Reason)) throws {
        let object = Self.object(row.name, size: row.size)
        #expect(try Self.keys([object, Self.object("good.tar", modified: 1)]) == ["good.tar"])
        do {
            _ = try Self.keys([object])
            Issue.record("chosen")
        } catch let problem as BackupChoiceProblem {
            // The folder's own marker object is nothing to report.
            #expect(problem.skipped.map(\.reason) == (row.name.isEmpty ? [] : [row.reason]))
            #expect(row.name.isEmpty || problem.description.contains(row.reason.rawValue))
        }
    }

    @Test("nothing at all")
    func nothing() {
        #expect(throws: BackupChoiceProblem.none(prefix: "b/", skipped: [])) { try Self.keys([]) }
    }

    @Test(
        "where companions are used, an archive without one is still being uploaded",
        arguments: [".sha256", ".complete"])
    func companions(_ suffix: String) throws {
        let newest = Self.object("20261124T030000Z.tar.zst")
        let older = Self.object("20261123T030000Z.tar.zst")
        let companion = Self.object("20261123T030000Z.tar.zst" + suffix, size: suffix == ".complete" ? 0 : 90)
        #expect(try Self.keys([newest, older]) == ["20261124T030000Z.tar.zst", "20261123T030000Z.tar.zst"])
        #expect(try Self.keys([newest, older, companion]) == ["20261123T030000Z.tar.zst"])
        let both = [newest, older, companion, Self.object("20261124T030000Z.tar.zst.complete", size: 1)]
        #expect(try Self.keys(both) == ["20261124T030000Z.tar.zst", "20261123T030000Z.tar.zst"])
        // A companion of nothing proves no convention; an empty checksum is none yet.
        #expect(try Self.keys([newest, Self.object("gone.tar" + suffix)]) == ["20261124T030000Z.tar.zst"])
        #expect(
            try Self.keys([newest, older, companion, Self.object("20261124T030000Z.tar.zst.sha256", size: 0)])
                == ["20261123T030000Z.tar.zst"])
    }

    @Test("older than newest-within is refused, with its age")
    func age() throws {
        let objects = [Self.object("20261122T040000Z.tar"), Self.object("20261123T030000Z.tar")]
        #expect(try Self.keys(objects, within: .seconds(25 * 3600)) == ["20261123T030000Z.tar"])
        do {
            _ = try Self.keys(objects, within: .seconds(24 * 3600))
            Issue.record("chosen")
        } catch BackupChoiceProblem.tooOld(let newest, let age, let allowed, _) {
            #expect(newest.object.key == "b/20261123T030000Z.tar")
            #expect(age == .seconds(25 * 3600) && allowed == .seconds(24 * 3600))
        }
    }

    @Test("other prefixes do not mix in; an empty prefix is the whole store")
    func prefixes() throws {
        let objects = [
            StoredObject(key: "bx.tar", size: 1, modified: 5), StoredObject(key: "b/y.tar", size: 1, modified: 9),
        ]
        #expect(
            try BackupChoice.newest(in: objects, prefix: "b", now: Self.now, newestWithin: nil).map(\.object.key) == [
                "bx.tar"
            ])
        #expect(
            try BackupChoice.newest(in: objects, prefix: "", now: Self.now, newestWithin: nil).map(\.object.key) == [
                "bx.tar"
            ])
    }
}

struct FindBackupTests {
    let scratch: ScratchDirectory
    let now: Int64 = BackupChoiceTests.now

    init() throws {
        scratch = try ScratchDirectory()
        for name in ["20261122T030000Z.tar", "20261123T030000Z.tar", "20261124T030000Z.tar"] {
            try scratch.write("b/" + name, "x")
        }
    }

    private func find(within: Duration? = nil) throws -> (first: String, warnings: Int) {
        let warnings = Warnings()
        let log = Log { level, _ in if level == .warning { warnings.add() } }
        let found = try FindBackup(store: TestFolderStore(scratch.path), log: log)
            .candidates(prefix: "b/", now: now, newestWithin: within, stop: .bounded())
        return (String(found[0].object.key.dropFirst(2)), warnings.count)
    }

    @Test("no pointer: the newest")
    func plain() throws {
        #expect(try find() == ("20261124T030000Z.tar", 0))
    }

    @Test(
        "a pointer to a complete backup is followed",
        arguments: ["20261123T030000Z.tar\n", "b/20261123T030000Z.tar", "/b/20261123T030000Z.tar \nmore"])
    func pointer(_ text: String) throws {
        try scratch.write("b/latest", text)
        #expect(try find() == ("20261123T030000Z.tar", 0))
    }

    @Test(
        "a pointer to nothing, or nonsense: the newest, with a warning", arguments: ["", "gone.tar", "../x", "\u{0}"])
    func badPointer(_ text: String) throws {
        try scratch.write("b/latest", text)
        #expect(try find() == ("20261124T030000Z.tar", 1))
    }

    @Test("a pointer to an incomplete or too old backup, or one too large to be a pointer")
    func uselessPointer() throws {
        try scratch.write("b/latest", "20261122T030000Z.tar")
        #expect(try find(within: .seconds(36 * 3600)) == ("20261124T030000Z.tar", 1))
        try scratch.write("b/20261123T030000Z.tar.complete", "")
        #expect(try find() == ("20261123T030000Z.tar", 1))
        try scratch.write("b/latest", String(repeating: "x", count: 10_000))
        #expect(try find() == ("20261123T030000Z.tar", 1))
    }
}
