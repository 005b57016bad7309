import Foundation
import TestSupport
import Testing

@testable import Backups
@testable import HostSystem

struct BackupManifestTests {
    private typealias Contents = ManifestTesting.Contents

    private static let names: [[UInt8]] = [
        Array("a".utf8), Array("d/é".utf8), [0x09], [0x0a], [0x25], Array("%0A".utf8), [0x01, 0x7f, 0xff, 0xe9],
        Array(1...255).filter { $0 != 0x2f }, [UInt8](repeating: 0x78, count: 4095), [0x20], [0x0d],
    ]

    private static func sample(_ header: BackupHeader) throws -> (packed: [UInt8], contents: BackupHeader) {
        let writer = try ManifestWriter()
        var members = names.enumerated().map { number, name in
            ManifestMember(
                FrameMember(
                    path: name, mode: UInt16(number * 341) & 0o7777, modified: [.min, -1, 0, 1, .max][number % 5],
                    size: Int64(number), start: number * 1024, count: number), isDead: number % 4 == 3)
        }
        func frame(_ length: Int) -> FrameExtraction.Frame {
            FrameExtraction.Frame(
                offset: 0, length: length, unpacked: length * 3, sha256: [UInt8](repeating: UInt8(length), count: 32),
                files: 0,
                contents: [])
        }
        try writer.add(frame(7), members: members)
        members = [0, 4].map {
            ManifestMember(
                FrameMember(
                    path: [0x70], mode: 0o600, modified: 7, size: 9, start: $0 == 0 ? 512 : 0, fileOffset: $0,
                    count: $0 == 0 ? 4 : 5))
        }
        try writer.add(frame(100), members: [members[0]])
        try writer.add(frame(101), members: [members[1]])
        try writer.add(headers: frame(3))
        for name in names {
            try writer.add(.symlink(path: name, target: name.reversed(), modified: -5))
            try writer.add(.hardLink(path: name.reversed(), target: name))
            try writer.add(.directory(path: name, mode: 0o7777, modified: .min))
        }
        try writer.add(.root(mode: 0o755, modified: -1))
        let (packed, made) = try writer.finish(header)
        return (packed, made)
    }

    private static var header: BackupHeader {
        var header = BackupHeader()
        header.app = "a\tb\nc%é"
        header.environment = "prod"
        header.time = 1_795_000_000
        header.source = "/srv/%\u{1}"
        header.madeBy = "amorce 1"
        header.copied = 3
        return header
    }

    @Test("every kind of line, names of any bytes")
    func roundTrip() throws {
        let (packed, made) = try Self.sample(Self.header)
        let contents = try Contents(packed)
        #expect(contents.header == made && made.app == Self.header.app && made.source == Self.header.source)
        #expect(made.size == 211 && made.files == Self.names.count - 2 + 1)
        #expect(contents.frames.map(\.offset) == [0, 7, 107, 208])
        #expect(contents.frames.map(\.holdsFiles) == [true, true, true, false])
        #expect(contents.frames[0].members.map(\.member.path) == Self.names)
        #expect(contents.frames[0].members.map(\.isDead) == Self.names.indices.map { $0 % 4 == 3 })
        #expect(contents.frames[0].members.map(\.member.modified).prefix(5) == [.min, -1, 0, 1, .max])
        #expect(contents.frames[2].members[0].member.fileOffset == 4)
        #expect(
            contents.last.count == 3 * Self.names.count + 1 && contents.last.last == .root(mode: 0o755, modified: -1))
        #expect(contents.last[6] == .symlink(path: [0x09], target: [0x09], modified: -5))
    }

    @Test("a packed manifest of which any byte is another, or that ends anywhere, is refused")
    func packedDamage() throws {
        let (packed, _) = try Self.sample(Self.header)
        let whole = try Contents(packed)
        for position in packed.indices {
            var damaged = packed
            damaged[position] ^= UInt8(1 << (position % 8))
            if let read = try? Contents(damaged) { #expect(read == whole, "byte \(position)") }
            #expect(throws: (any Error).self) { try Contents(Array(packed[..<position])) }
        }
        #expect(throws: (any Error).self) { try Contents(packed + [0]) }
        #expect(throws: (any Error).self) { try Contents(packed + packed) }
    }

    @Test("a text that ends anywhere, or of which a line behind the head is missing or comes twice, is refused")
    func textDamage() throws {
        let (packed, _) = try Self.sample(Self.header)
        let text = Array(try ManifestTesting.unpack(packed).utf8)
        let plain = try ManifestTesting.pack(text)
        // Names that are no UTF-8 are lost on the way through a String, so the text is looked at as such.
        _ = try? Contents(plain)
        var forged = ForgedBackup()
        forged.frames = [
            [.init("a"), .init("b")], [.init("c", "xx", size: 4)], [.init("c", "yy", offset: 2, size: 4)],
        ]
        forged.last = [
            .symlink(path: [0x6c], target: [0x61], modified: 0), .directory(path: [0x64], mode: 0o755, modified: 1),
        ]
        let store = MemoryStore()
        try forged.put(into: store)
        let small = try ManifestTesting.unpack(try #require(store[BackupKey.manifest(of: ForgedBackup.key)]))
        let lines = small.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
        let head = try #require(lines.firstIndex(of: ""))
        _ = try Contents(try ManifestTesting.pack(small))
        for end in 0..<small.utf8.count {
            #expect(throws: ArchiveError.self) { try Contents(try ManifestTesting.pack(Array(small.utf8.prefix(end)))) }
        }
        for number in head..<lines.count {
            var without = Array(lines)
            without.remove(at: number)
            #expect(throws: ArchiveError.self) {
                try Contents(try ManifestTesting.pack(without.joined(separator: "\n") + "\n"))
            }
            if number == head { continue }
            var twice = Array(lines)
            twice.insert(twice[number], at: number)
            #expect(throws: ArchiveError.self) {
                try Contents(try ManifestTesting.pack(twice.joined(separator: "\n") + "\n"))
            }
        }
    }

    @Test("twenty thousand random changes: read or refused, never a trap")
    func fuzz() throws {
        var forged = ForgedBackup()
        forged.frames = [
            [.init("a"), .init("b%")], [.init("c", "xx", size: 4)], [.init("c", "yy", offset: 2, size: 4)],
        ]
        forged.last = [
            .symlink(path: [0x6c], target: [0x61], modified: 0), .hardLink(path: [0x68], target: [0x61]),
            .directory(path: [0x64], mode: 0o755, modified: 1), .root(mode: 0o755, modified: 4),
        ]
        let store = MemoryStore()
        try forged.put(into: store)
        let text = Array(try ManifestTesting.unpack(try #require(store[BackupKey.manifest(of: ForgedBackup.key)])).utf8)
        let tree = try FramedSite()
        try tree.tree.write([0x61], Array("contents".utf8))
        let scanned = try ScannedTree(SourceTree(tree.tree.root), options: .init(threads: 1), stop: .bounded())
        var random = SeededGenerator(2026)
        let numbers = [
            "9223372036854775807", "-9223372036854775808", "99999999999999999999", "4611686018427387904", "-1", "0", "",
        ]
        var refused = 0
        for _ in 0..<20_000 {
            var changed = text
            for _ in 0...random.below(3) {
                let position = random.below(changed.count)
                switch random.below(6) {
                case 0: changed[position] = UInt8(random.below(256))
                case 1: changed.remove(at: position)
                case 2: changed.insert([0x09, 0x0a, 0x25, 0x2d, 0x30][random.below(5)], at: position)
                case 3:
                    // A number becomes another one.
                    var end = position
                    while end < changed.count && (0x30...0x39).contains(changed[end]) { end += 1 }
                    changed.replaceSubrange(position..<end, with: numbers[random.below(numbers.count)].utf8)
                case 4:
                    let end = min(changed.count, position + random.below(60))
                    changed += changed[position..<end]
                default: changed.swapAt(position, random.below(changed.count))
                }
            }
            let packed = try ManifestTesting.pack(changed)
            do {
                let contents = try ManifestTesting.Contents(packed)
                // What is read must not trap where it is used.
                let object = StoredObject(key: ForgedBackup.key, size: contents.header.size)
                let rules = PartRules(smallest: 1, largest: 1 << 40, most: 10_000)
                _ = try? EarlierBackup(object, manifest: packed).take(
                    for: scanned, rules: rules, writer: ManifestWriter())
            } catch is ArchiveError {
                refused += 1
            }
        }
        #expect(refused > 10_000)
    }

    private func refusal(_ text: String) throws -> ArchiveError? {
        do {
            _ = try Contents(try ManifestTesting.pack(text))
            return nil
        } catch let error as ArchiveError {
            return error
        }
    }

    @Test("another version, an unknown line of the head, a head that lacks something")
    func head() throws {
        let store = MemoryStore()
        try ForgedBackup().put(into: store)
        let text = try ManifestTesting.unpack(try #require(store[BackupKey.manifest(of: ForgedBackup.key)]))
        #expect(try refusal(text) == nil)
        guard
            case .unsupported(let reason, _) = try refusal(text.replacing("amorce-backup\t1", with: "amorce-backup\t2"))
        else {
            Issue.record("a later version is not said to be one")
            return
        }
        #expect(reason.contains("format 2"))
        let more = text.replacing("\nsize\t", with: "\nlater-field\tanything at\tall\nsize\t")
        #expect(try refusal(more) == nil)
        for (old, new) in [
            ("amorce-backup\t1", "amorce-backup\tx"), ("amorce-backup\t1", "something\t1"), ("\nsize\t", "\nsizes\t"),
            ("\nfiles\t", "\nfiles\t-"), ("\nbytes\t", "\nbytes\t99999999999999999999"), ("\ntime\t2", "\ntime\tx"),
            ("\ncopied\t", "\ncopied"), ("\nfiles\t1", "\nfiles\t2"), ("\nsize\t", "\nsize\t1"),
            ("\nmade-by\t", "\nmade-by\t%0"), ("F\t0\t", "F\t1\t"), ("F\t0\t", "F\t-0\t1"), ("E\t", "F\t"),
            ("E\t", "E\t1"),
            ("\nend\t2\t1\t0\t0", "\nend\t2\t1\t0\t1"), ("\nend\t2\t1\t0\t0", "\nend\t3\t1\t0\t0"),
            ("\nend\t2\t1\t0\t0\n", "\nend\t2\t1\t0\t0\t\n"), ("\nend\t2\t1\t0\t0\n", "\nend\t2\t1\t0\t0\nR\t0\n"),
            ("\tgood", "\t"), ("\tgood", "\tgo%"), ("\tgood", "\tg%zz"), ("\tgood", "\t%00"),
        ] {
            let changed = text.replacing(old, with: new)
            #expect(changed != text, "\(old)")
            #expect(try refusal(changed) != nil, "\(old) becomes \(new)")
        }
    }
}
