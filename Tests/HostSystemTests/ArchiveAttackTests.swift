import HostSystem
import TestSupport
import Testing

/// Archives that try to leave the directory, or to leave something in it that must not be there. Whatever becomes of them,
/// what lies outside stays as it was.
struct ArchiveAttackTests {
    struct Attack: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let reason: RefusedEntry
        let build: @Sendable (inout TarBuilder) -> Void

        init(_ name: String, _ reason: RefusedEntry, _ build: @escaping @Sendable (inout TarBuilder) -> Void) {
            testDescription = name
            self.reason = reason
            self.build = build
        }
    }

    static let attacks: [Attack] = [
        Attack("dot dot", .parentInName) { $0.add("../outside.txt", content: [1]) },
        Attack("dot dot in the middle", .parentInName) { $0.add("a/../../outside.txt", content: [1]) },
        Attack("dot dot at the end", .parentInName) { $0.add("a/..", type: "5") },
        Attack("absolute", .absoluteName) { $0.add("/tmp/amorce-attack", content: [1]) },
        Attack("absolute with slashes", .absoluteName) { $0.add("//tmp/amorce-attack", content: [1]) },
        Attack("symlink to an absolute place", .absoluteLinkTarget) { $0.add("l", type: "2", link: "/etc/passwd") },
        Attack("symlink out", .linkOutside) { $0.add("l", type: "2", link: "../outside.txt") },
        Attack("symlink out from below", .linkOutside) { $0.add("a/b/l", type: "2", link: "../../../outside.txt") },
        Attack("symlink in and out", .linkOutside) { $0.add("l", type: "2", link: "a/../../outside.txt") },
        Attack("symlink with an empty target", .emptyLinkTarget) { $0.add("l", type: "2", link: "") },
        Attack("write through a symlink", .throughSymlink) {
            $0.add("d/", type: "5")
            $0.add("l", type: "2", link: "d")
            $0.add("l/file", content: [1])
        },
        Attack("write over a symlink", .changesKind(from: "symlink", to: "file")) {
            $0.add("d", content: [1])
            $0.add("l", type: "2", link: "d")
            $0.add("l", content: [2])
        },
        Attack("a chain whose links are each harmless by name", .linkOutside) {
            // d/e leads to the root, so d/e/.. is lexically d, and truly the root's parent.
            $0.add("d/", type: "5")
            $0.add("d/e", type: "2", link: "..")
            $0.add("out", type: "2", link: "d/e/../outside.txt")
        },
        Attack("the same chain in the other order", .linkOutside) {
            $0.add("out", type: "2", link: "d/e/../outside.txt")
            $0.add("d/", type: "5")
            $0.add("d/e", type: "2", link: "..")
        },
        Attack("a deep chain, CVE-2025-4517", .linkOutside) {
            let long = String(repeating: "d", count: 200)
            var path = ""
            for name in (0..<16).map({ String(UnicodeScalar(UInt8(97 + $0))) }) {
                $0.add(path + long + "/", type: "5")
                $0.add(path + name, type: "2", link: long)
                path += long + "/"
            }
            let short = (0..<16).map { String(UnicodeScalar(UInt8(97 + $0))) }.joined(separator: "/")
            $0.add(
                short + "/" + String(repeating: "l", count: 254), type: "2",
                link: String(repeating: "../", count: 17) + "x")
        },
        Attack("hard link out", .parentInName) { $0.add("h", type: "1", link: "../outside.txt") },
        Attack("hard link to an absolute place", .absoluteName) { $0.add("h", type: "1", link: "/etc/passwd") },
        Attack("hard link to a symlink", .hardLinkToNoEarlierFile) {
            $0.add("f", content: [1])
            $0.add("l", type: "2", link: "f")
            $0.add("h", type: "1", link: "l")
        },
        Attack("hard link through a symlink", .hardLinkToNoEarlierFile) {
            $0.add("d/f", content: [1])
            $0.add("l", type: "2", link: "d")
            $0.add("h", type: "1", link: "l/f")
        },
        Attack("hard link to a directory", .hardLinkToNoEarlierFile) {
            $0.add("d/", type: "5")
            $0.add("h", type: "1", link: "d")
        },
        Attack("hard link to a later member", .hardLinkToNoEarlierFile) {
            $0.add("h", type: "1", link: "f")
            $0.add("f", content: [1])
        },
        Attack("hard link to itself", .hardLinkToNoEarlierFile) {
            $0.add("h", content: [1])
            $0.add("h", type: "1", link: "h")
        },
        Attack("character device", .specialFile("device")) { $0.add("dev", type: "3") },
        Attack("block device", .specialFile("device")) { $0.add("dev", type: "4") },
        Attack("FIFO", .specialFile("FIFO")) { $0.add("pipe", type: "6") },
        Attack("file then directory", .changesKind(from: "file", to: "directory")) {
            $0.add("x", content: [1])
            $0.add("x/", type: "5")
        },
        Attack("file then something below it", .throughFile) {
            $0.add("x", content: [1])
            $0.add("x/y", content: [1])
        },
        Attack("directory then symlink", .changesKind(from: "directory", to: "symlink")) {
            $0.add("x/", type: "5")
            $0.add("x", type: "2", link: ".")
        },
        Attack("directory then file", .changesKind(from: "directory", to: "file")) {
            $0.add("x/y", content: [1])
            $0.add("x", content: [1])
        },
        Attack("symlink then directory", .changesKind(from: "symlink", to: "directory")) {
            $0.add("y/", type: "5")
            $0.add("x", type: "2", link: "y")
            $0.add("x/", type: "5")
        },
    ]

    @Test("refused", arguments: attacks)
    func refused(_ attack: Attack) throws {
        var tar = TarBuilder()
        tar.add("before.txt", content: Array("x".utf8))
        attack.build(&tar)
        let attempt = try Attempt(tar.finished)
        guard case .refused(let reason, let entry) = attempt.error else {
            Issue.record("not refused: \(attempt.result)")
            return
        }
        #expect(reason == attack.reason, "\(entry)")
        #expect(try attempt.isOutsideUntouched)
        #expect(!Files.exists("/tmp/amorce-attack"))
    }

    @Test("a file of the superuser outside is untouched by a hard link's name")
    func hardLinkKeepsOutside() throws {
        // linkat would give the tree a second name of a file outside: none is made.
        var tar = TarBuilder()
        tar.add("d/", type: "5")
        tar.add("d/h", type: "1", link: "./../../outside.txt")
        let attempt = try Attempt(tar.finished)
        #expect(attempt.error == .refused(.parentInName, entry: "d/h"))
        #expect(try Files.status(attempt.scratch("work/outside.txt"))?.links == 1)
    }

    @Test(
        "links that stay inside are made",
        arguments: [
            ("a/b/l", "../../f"), ("l", "f"), ("l", "./a/../f"), ("l", "l"), ("a/l", ".."), ("l", "."),
            ("l", "nowhere"),
        ])
    func insideLinks(_ link: (String, String)) throws {
        var tar = TarBuilder()
        tar.add("f", content: [1])
        tar.add("a/b/", type: "5")
        tar.add(link.0, type: "2", link: link.1)
        let attempt = try Attempt(tar.finished)
        #expect(try attempt.result.get().links == 1)
        #expect(Files.linkTarget(attempt.root + "/" + link.0) == link.1)
    }

    @Test("the root's own entry changes nothing, a locked directory is usable")
    func modes() throws {
        var tar = TarBuilder()
        tar.add("./", type: "5", mode: 0)
        tar.add("./d/", type: "5", mode: 0)
        tar.add("./d/f", content: [1], mode: 0)
        tar.add("/.".dropFirst() + "", type: "5", mode: 0)
        let attempt = try Attempt(tar.finished)
        let result = try attempt.result.get()
        #expect(result.directories == 1 && result.skipped.isEmpty)
        #expect(try Files.status(attempt.root)?.mode == 0o700)
        #expect(try Files.status(attempt.root + "/d")?.mode == 0o700)
        #expect(try Files.status(attempt.root + "/d/f")?.mode == 0o600)
    }

    @Test(
        "names are bytes",
        arguments: [
            Array("é".utf8), [0xe9], Array("a\nb".utf8), Array("\u{1b}[31mred".utf8), Array("-rf".utf8), [0xff, 0xfe],
            Array(" ".utf8),
            Array("a\\..\\b".utf8), Array("...".utf8), Array(repeating: 0xc3, count: 255), Array("日本語".utf8),
        ] as [[UInt8]], ["ustar", "pax"])
    func names(_ name: [UInt8], _ format: String) throws {
        var tar = TarBuilder()
        if format == "pax" {
            let body = Array(" path=".utf8) + name + [0x0a]
            var length = body.count + 1
            while String(length).count + body.count != length { length = String(length).count + body.count }
            tar.add("PaxHeaders/x", type: "x", content: Array(String(length).utf8) + body)
            tar.add("short", content: [7])
        } else {
            tar.add(name, content: [7])
        }
        let attempt = try Attempt(tar.finished)
        let result = try attempt.result.get()
        #expect(result.warnings.count == 1, "\(result.warnings)")
        let listing = try Program.check(["bash", "-c", "cd \"$0\" && find . -mindepth 1 -printf '%P\\0'", attempt.root])
        #expect(listing == name + [0])
    }

    @Test("a name with a terminal's escape is escaped in the message")
    func escapedInMessages() throws {
        var tar = TarBuilder()
        tar.add("a\u{1b}[2J\n", type: "6")
        #expect(try Attempt(tar.finished).error == .refused(.specialFile("FIFO"), entry: "a\\u{1b}[2J\\n"))
    }

    @Test(
        "zip attacks by Python",
        arguments: [
            ("dotdot", "z.writestr('../outside.txt', b'x')"),
            ("absolute", "z.writestr('/tmp/amorce-attack', b'x')"),
            ("symlink", "i = zipfile.ZipInfo('l'); i.external_attr = 0o120777 << 16; z.writestr(i, '/etc/passwd')"),
            ("chain", "i = zipfile.ZipInfo('l'); i.external_attr = 0o120777 << 16; z.writestr(i, '..')"),
            (
                "through",
                "z.writestr('d/', b''); i = zipfile.ZipInfo('l'); i.external_attr = 0o120777 << 16; "
                    + "z.writestr(i, 'd'); z.writestr('l/f', b'x')"
            ),
            ("twice", "z.writestr('a', b'1'); z.writestr('a', b'2')"),
            ("device", "i = zipfile.ZipInfo('l'); i.external_attr = 0o020777 << 16; z.writestr(i, '')"),
        ])
    func zipAttacks(_ attack: (name: String, code: String)) throws {
        let scratch = try ScratchDirectory()
        let script =
            "import sys, zipfile, warnings; warnings.simplefilter('ignore')\n"
            + "z = zipfile.ZipFile(sys.argv[1], 'w'); \(attack.code); z.close()"
        try Program.check(["python3", "-c", script, scratch("a.zip")])
        let attempt = try Attempt(FileReading.bytes(scratch("a.zip"), limit: 1 << 20), as: .zip)
        guard case .refused = attempt.error else {
            Issue.record("not refused: \(attempt.result)")
            return
        }
        #expect(try attempt.isOutsideUntouched)
        #expect(!Files.exists("/tmp/amorce-attack"))
    }

    @Test("a directory that is not empty is left alone")
    func notEmpty() throws {
        let scratch = try ScratchDirectory()
        try scratch.write("root/there", "old")
        var tar = TarBuilder()
        tar.add("there", content: [1])
        let attempt = try Attempt(tar.finished, in: scratch("root"))
        #expect(attempt.hostError?.errno == 39)
        #expect(try FileReading.text(scratch("root/there"), limit: 10) == "old")
    }

    @Test("a symlink in the directory's place is refused")
    func rootIsSymlink() throws {
        let scratch = try ScratchDirectory()
        try Files.makeNewDirectory(scratch("real"), mode: 0o700)
        try Files.symlink(target: "real", at: scratch("link"))
        var tar = TarBuilder()
        tar.add("f", content: [1])
        #expect(try Attempt(tar.finished, in: scratch("link")).hostError != nil)
        #expect(try Attempt(tar.finished, in: scratch("missing")).hostError?.isAbsent == true)
        #expect(try Files.names(in: scratch("real")).isEmpty)
    }
}
