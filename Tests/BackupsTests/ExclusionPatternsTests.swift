import HostSystem
import TestSupport
import Testing

@testable import Backups

struct ExclusionPatternsTests {
    private static let patterns = [
        "a", "/a", "a/", "/a/", "a/b", "/a/b", "a/b/", "a/*", "a/*/", "*", "*/", "/*", "*.log", "!keep.log", "a*", "*b",
        "*a*b*",
        "?", "??", "a?c", "[abc]", "[a-c]x", "[!a]", "[^a-b]x", "[]a]", "[]-a]", "[a-]", "[-a]", "[[:digit:]]",
        "[[:alpha:][:digit:]]x",
        "[![:upper:]]", "[\\]]", "[\\a-c]", "[a", "a[", "[[:no:]]", "\\#x", "\\!x", "#x", "\\a", "a\\", "a\\*", "\\*",
        "a b",
        "a\\ ", "a\\  ", "a   ", "a\t", "**", "**/", "/**", "**/a", "**/a/", "**/a/b", "a/**", "a/**/", "a/**/b",
        "a/**/c", "/a/**/b",
        "**/b/**", "**/*", "**/*.log", "a**", "**b", "a/b**", "*/b", "*/*", "/*/b", "*/*/c", "a/[b-c]", "a/?",
        "foo/bar", "x.log", "!a", "!/a", "!a/", "!*.log", "!a/b", "", "   ", "#", "é", "?é", "\u{feff}a", "[a-c",
        "a/**/b/**/c",
        "**/a/**/c", "*a", "*.", ".*", "a/b/c", "/a/b/c", "b/c",
    ]

    private static let paths = [
        "a", "a/b", "a/b/c", "a/c", "b", "b/a", "b/a/b", "c", "x.log", "a/x.log", "keep.log", "a/keep.log", "#x", "!x",
        "abc", "ab",
        "a b", "a ", "a\\", "a*", "*", "]", "[", "-", "ax", "bx", "5", "5x", "A", "foo/bar", "x/foo/bar", ".hidden",
        "a.", "é", "xé",
        "aXb", "a\t", "b/c", "x/b/c", "a/b/x/c", "a/x/y/b", "a/x/b/y/c", "[a", "a[", "a/x.log/c", "dir.log/a",
    ]

    @Test("as git reads them")
    func git() throws {
        let scratch = try ScratchDirectory()
        try Files.makeNewDirectory(scratch("r"), mode: 0o755)
        try Program.check(["git", "init", "-q", scratch("r")])
        let tree = RawTree(scratch("r"))
        // Every path is a file; what stands above it is a directory.
        var kinds: [String: Bool] = [:]
        for path in Self.paths {
            let parts = path.split(separator: "/").map(String.init)
            for count in 1...parts.count {
                let name = parts[..<count].joined(separator: "/")
                kinds[name] = kinds[name] ?? false || count < parts.count
            }
        }
        for (path, isDirectory) in kinds.sorted(by: { $0.key < $1.key }) {
            if isDirectory { try tree.makeDirectory(Array(path.utf8)) } else { try tree.write(Array(path.utf8), []) }
        }
        let names = kinds.keys.sorted()
        var random = SeededGenerator(8)
        var lists = Self.patterns.map { [$0] }
        for _ in 0..<150 {
            lists.append((0..<(2 + random.below(3))).map { _ in Self.patterns.randomElement(using: &random) ?? "" })
        }
        for list in lists {
            let text = list.joined(separator: "\n") + "\n"
            try tree.write(Array(".gitignore".utf8), Array(text.utf8))
            try scratch.write("names", names.joined(separator: "\0"))
            let result = try Program.run([
                "bash", "-c",
                "cd \"$0\" && git -c core.quotePath=false -c core.excludesFile=/dev/null check-ignore -z --no-index --stdin < ../names",
                tree.root,
            ])
            let ignored = Set(String(decoding: result.output, as: UTF8.self).split(separator: "\0").map(String.init))
            let patterns = try ExclusionPatterns(lines: Array(text.utf8))
            for name in names {
                // What is above is asked first, as whoever walks a tree does.
                let parts = name.split(separator: "/").map(String.init)
                let isExcluded = (1...parts.count).contains { count in
                    let above = parts[..<count].joined(separator: "/")
                    return patterns.excludes(
                        Array(above.utf8), isDirectory: count < parts.count || kinds[above] == true)
                }
                #expect(isExcluded == ignored.contains(name), "\(list) and \(name)")
            }
        }
    }

    @Test("lines of other systems, and what is no pattern")
    func lines() throws {
        let patterns = try ExclusionPatterns(lines: Array("\u{feff}a\r\n# no\r\n\r\n*.log\r\n!x.log".utf8))
        #expect(
            patterns.excludes([0x61], isDirectory: false)
                && patterns.excludes(Array("d/y.log".utf8), isDirectory: false))
        #expect(
            !patterns.excludes(Array("x.log".utf8), isDirectory: false) && !patterns.excludes([0x62], isDirectory: true)
        )
        #expect(try ExclusionPatterns(lines: Array("\n#\n  \n".utf8)).isEmpty)
        for text in [".", "./", "/", "//", "!", "!/", "..", "a/../b", "../a"] {
            #expect(throws: ExclusionPatterns.Invalid.self, "\(text)") {
                var patterns = ExclusionPatterns()
                try patterns.add(text)
            }
        }
        var dotted = ExclusionPatterns()
        try dotted.add("./a")
        #expect(dotted.excludes([0x61], isDirectory: false) && !dotted.excludes(Array("b/a".utf8), isDirectory: false))
    }

    @Test("no pattern takes long, and no bytes trap")
    func anything() throws {
        var long = ExclusionPatterns()
        try long.add(String(repeating: "**/a/", count: 40) + "b")
        try long.add(String(repeating: "*a", count: 100) + "b")
        #expect(
            !long.excludes(Array(repeating: [0x61, 0x2f], count: 1000).flatMap { $0 } + [0x61], isDirectory: false))
        #expect(!long.excludes([UInt8](repeating: 0x61, count: 255), isDirectory: false))
        var random = SeededGenerator(4)
        let alphabet = Array("ab*?[]!^-\\/: .#\u{7f}".utf8) + [0xff, 0x09]
        for _ in 0..<20_000 {
            let text = (0..<random.below(12)).map { _ in alphabet.randomElement(using: &random) ?? 0 }
            guard let patterns = try? ExclusionPatterns(lines: text) else { continue }
            _ = patterns.excludes(
                (0..<(1 + random.below(8))).map { _ in alphabet.randomElement(using: &random) ?? 0 },
                isDirectory: random.oneIn(2))
        }
    }

    @Test("a backup leaves out what they name, with all below it")
    func backup() throws {
        let site = try FramedSite()
        for path in ["a.log", "keep", "cache/x", "cache/y/z", "b/cache/x"] {
            try site.scratch.write("site/" + path, path)
        }
        let patterns = try ExclusionPatterns(lines: Array("*.log\n/cache/\n".utf8))
        var options = site.options()
        options.isExcluded = { patterns.excludes($0, isDirectory: $1) }
        let made = try CreateBackup(store: site.store, log: .silent).create(
            from: SourceTree(site.tree.root), prefix: "", options: options, stop: .bounded(), progress: { _ in })
        #expect(made.excluded == 2 && made.files == 2 && made.directories == 2)
        let names = try site.restore(made.key).nodes().keys.map { String(decoding: $0, as: UTF8.self) }.sorted()
        #expect(names == ["b", "b/cache", "b/cache/x", "keep"])
    }
}
