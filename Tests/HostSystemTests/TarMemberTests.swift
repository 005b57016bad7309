import TestSupport
import Testing

@testable import HostSystem

/// What amorce writes as tar is what GNU tar and libarchive read.
struct TarMemberTests {
    private static func long(_ component: Int, _ count: Int) -> [UInt8] {
        Array(repeating: [UInt8](repeating: 0x6e, count: component), count: count).joined(separator: [0x2f]).map { $0 }
    }

    private static let names: [[UInt8]] =
        [1, 98, 99, 100, 101, 102, 254, 255].map { long($0, 1) }
        + [long(99, 2), long(49, 2), long(50, 2), long(255, 15), long(199, 20)]
        + [
            [0x0a], [0x09, 0x20], [0xff, 0xfe, 0x80], Array(1...127).filter { $0 != 0x2f }, Array(128...255),
            Array("é".utf8),
        ]
        + [Array("-rf".utf8), Array("a\\b".utf8), Array("...".utf8), Array("././@LongLink".utf8).filter { $0 != 0x2f }]

    /// Every name as a file, a symlink's target, a hard link's target and a directory.
    private static func archive() -> [UInt8] {
        var bytes: [UInt8] = []
        for (number, name) in names.enumerated() {
            let prefix = Array("\(number)/".utf8)
            let contents = [UInt8](repeating: UInt8(number), count: number * 100)
            bytes +=
                TarMember(
                    path: prefix + name, kind: .regular(size: Int64(contents.count)), mode: 0o640,
                    modified: Int64(number) * 1_999_999_999
                ).header
            bytes += contents + [UInt8](repeating: 0, count: TarMember.padding(after: Int64(contents.count)))
            bytes += TarMember(path: prefix + [0x6c], kind: .symlink(target: name), mode: 0o777, modified: -1).header
            bytes +=
                TarMember(path: prefix + [0x68], kind: .hardLink(target: prefix + name), mode: 0o640, modified: 0)
                .header
            bytes +=
                TarMember(path: [0x64] + prefix + name, kind: .directory, mode: 0o750, modified: -5_000_000_000).header
        }
        return bytes + TarMember.endMark
    }

    @Test("long and odd names, unpacked by GNU tar")
    func gnu() throws {
        let scratch = try ScratchDirectory()
        // Short enough for a path of the root's length and 4000 bytes of a name to fit.
        try Files.makeNewDirectory(scratch("t"), mode: 0o755)
        try scratch.write("x.tar", Self.archive())
        let result = try Program.run(["tar", "-xpf", scratch("x.tar"), "-C", scratch("t"), "--warning=no-timestamp"])
        #expect(result.isSuccess, "\(result.explanation)")
        for (number, name) in Self.names.enumerated() {
            let prefix = Array("\(number)/".utf8)
            // From within, as no absolute path may be that long.
            let tree = RawTree(scratch("t"))
            if name.count > 3900 { continue }
            #expect(try tree.bytes(prefix + name) == [UInt8](repeating: UInt8(number), count: number * 100))
        }
        let nodes = try RawTree(scratch("t")).nodes()
        for (number, name) in Self.names.enumerated() where name.count <= 3900 {
            let prefix = Array("\(number)/".utf8)
            let file = try #require(nodes[prefix + name])
            #expect(file.kind == .regular && file.mode == 0o640)
            #expect(nodes[prefix + [0x6c]]?.contents == name)
            #expect(nodes[prefix + [0x6c]]?.modified == -1_000_000_000)
            #expect(file.group != nil && nodes[prefix + [0x68]]?.group == file.group)
            let directory = try #require(nodes[[0x64] + prefix + name])
            #expect(directory.kind == .directory && directory.mode == 0o750 && directory.modified == -5_000_000_000)
        }
    }

    @Test("the same, read by libarchive")
    func libarchive() throws {
        let reader = try TarReader(TestByteSource(Self.archive()))
        for (number, name) in Self.names.enumerated() {
            let prefix = Array("\(number)/".utf8)
            let file = try #require(try reader.next())
            #expect(file.name == prefix + name && file.kind == .regular && file.size == Int64(number * 100))
            #expect(file.mode == 0o640 && file.modified?.seconds == Int64(number) * 1_999_999_999 / 1_000_000_000)
            var bytes: [UInt8] = []
            try reader.contents { bytes += $1 }
            #expect(bytes == [UInt8](repeating: UInt8(number), count: number * 100))
            let symlink = try #require(try reader.next())
            #expect(symlink.kind == .symlink(target: name) && symlink.modified?.seconds == -1)
            #expect(try reader.next()?.kind == .hardLink(target: prefix + name))
            let directory = try #require(try reader.next())
            #expect(directory.kind == .directory && directory.name.starts(with: [0x64] + prefix + name))
            #expect(directory.modified?.seconds == -5)
        }
        #expect(try reader.next() == nil)
        try reader.finish(stop: .bounded())
    }

    @Test(
        "times",
        arguments: [0, 1, -1, -86400, 8_589_934_591, 8_589_934_592, -8_589_934_592, 9_223_372_036, -9_223_372_037]
            as [Int64])
    func times(_ seconds: Int64) throws {
        let nanoseconds = seconds == -9_223_372_037 ? .min : seconds * 1_000_000_000
        let bytes =
            TarMember(path: [0x61], kind: .regular(size: 0), mode: 0o644, modified: nanoseconds).header
            + TarMember.endMark
        #expect(try TarReader(TestByteSource(bytes)).next()?.modified?.seconds == seconds)
        let scratch = try ScratchDirectory()
        try scratch.write("x.tar", bytes)
        let listing = try Program.check(
            ["tar", "--full-time", "--utc", "-tvf", scratch("x.tar")],
            environment: ["LC_ALL": "C", "PATH": "/usr/bin:/bin"])
        let date = try Program.check(["date", "-u", "-d", "@\(seconds)", "+%Y-%m-%d %H:%M:%S"])
        #expect(String(decoding: listing, as: UTF8.self).contains(String(decoding: date.dropLast(), as: UTF8.self)))
    }

    @Test(
        "sizes",
        arguments: [0, 1, 512, 0o77777777777, 0o100000000000, (8 << 30) + 5, 1 << 40, 1 << 60] as [Int64])
    func sizes(_ size: Int64) throws {
        let header = TarMember(path: [0x61], kind: .regular(size: size), mode: 0o7777, modified: 0).header
        #expect(header.count == 512)
        let entry = try TarReader(TestByteSource(header + TarMember.endMark)).next()
        #expect(entry?.size == size && entry?.mode == 0o7777)
        #expect((size + Int64(TarMember.padding(after: size))) % 512 == 0)
        let scratch = try ScratchDirectory()
        try scratch.write("x.tar", header)
        let listing = try Program.run(
            ["tar", "-tvf", scratch("x.tar")], environment: ["LC_ALL": "C", "PATH": "/usr/bin:/bin"])
        #expect(String(decoding: listing.output, as: UTF8.self).contains(" \(size) "))
    }

    @Test("the bytes of one that GNU tar makes")
    func sameAsGNU() throws {
        let scratch = try ScratchDirectory()
        try scratch.write("f", "12345", mode: 0o604)
        try Program.check(["touch", "-d", "@1234567890", scratch("f")])
        try Program.check([
            "tar", "--format=gnu", "--owner=:0", "--group=:0", "-cf", scratch("x.tar"), "-C", scratch.path, "f",
        ])
        var made = try FileReading.bytes(scratch("x.tar"), limit: 1 << 20)
        // Names of owners are not written.
        for offset in Array(265..<329) { made[offset] = 0 }
        let own = TarMember(path: [0x66], kind: .regular(size: 5), mode: 0o604, modified: 1_234_567_890_999_999_999)
            .header
        #expect(Array(own.prefix(148)) == Array(made.prefix(148)))
        #expect(Array(own[156..<345]) == Array(made[156..<345]))
        #expect(own[154] == made[154] && own[155] == made[155])
    }
}
