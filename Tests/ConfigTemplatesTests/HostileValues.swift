import ConfigTemplates
import Testing

/// Values that have broken configuration files, and random mixtures of them: the same on every run.
enum HostileValues {
    /// Text with an end of its own in some language, and bytes with a meaning in one.
    static let pieces: [[UInt8]] = {
        let texts = [
            "", " ", "  ", "\t", "\n", "\r", "\r\n", "\n\n", "'", "\"", "`", "\\", "\\\\", "\\'", "\\\"", "\\n", "\\x41",
            "\\101", "$", "$$", "${", "${HOME}", "${HOME", "$HOME", "$pool", "$po", "ol", "$(id)", "$((1+1))", "{", "}",
            "{$", "{$a}", "{{", "}}", "{{x}}", "%", "%%", "%{HOME}e", "%msg%", "%s", "#", " #", "# x", ";", " ;", "; x",
            "//", "/*", "*/", "?>", "<?php", "<?=", "<?", "EOT", "EOT;", "\nEOT;\n", "\nEOT\n", "  EOT", "<<<EOT", "<<EOT",
            "<!--", "-->", "</script>", "<b>", "&amp;", "&", "|", "||", "^", "~", "!", "!!", "(", ")", "[", "]", "=",
            "a=b", ",", ".", ":", "@", "*", "?", "on", "On", "off", "none", "null", "true", "false", "yes", "no", "0", "1",
            "42", "-1", "1e3", "0x1f", "E_ALL", "PHP_VERSION", "a", "abc", "x y", " lead", "trail ", "\tlead", "trail\t",
            "end\\", "expr=1", "\u{e9}", "\u{1f600}", "\u{a0}", "\u{feff}", "\u{2028}", "C:\\new\\table", "it's",
            "say \"hi\"", "a'b\"c", "/var/www/x", "-n", "-e x", "MADE-UP-SECRET",
        ]
        let bytes: [[UInt8]] = [
            [1], [7], [8], [0x0b], [0x0c], [0x1a], [0x1b], [0x7f], [0x80], [0x81], [0x82], [0x85], [0x88], [0xa0], [0xc3],
            [0xe9], [0xff], [0xe9, 0x27], [0x5c, 0xe9],
        ]
        return texts.map { Array($0.utf8) } + bytes
    }()

    /// Every piece, every single byte but NUL, and 2,400 random mixtures.
    static let all: [[UInt8]] = {
        var random = SplitMix(state: 0x616d_6f72_6365)
        var values = pieces + (1...255).map { [UInt8($0)] }
        for _ in 0..<2_400 {
            let count = Int.random(in: 1...7, using: &random)
            values.append((0..<count).flatMap { _ in pieces.randomElement(using: &random) ?? [] })
        }
        return values
    }()

    struct SplitMix: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 0x9e37_79b9_7f4a_7c15
            var z = state
            z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
            return z ^ (z >> 31)
        }
    }
}

/// One way of writing a value into a file: the same entry again and again, with `{{key}}` for a name of its own and `{{value}}`
/// in the place that is tried.
struct TriedPlace: CustomTestStringConvertible {
    let testDescription: String
    let before: String
    let entry: String
    let after: String
    /// What the author's own text puts around the value.
    let prefix: String
    let suffix: String
    /// The values that this place refuses, exactly.
    let refuses: @Sendable ([UInt8]) -> Bool

    init(
        _ name: String, before: String = "", _ entry: String, after: String = "", prefix: String = "", suffix: String = "",
        refuses: @escaping @Sendable ([UInt8]) -> Bool = { _ in false }
    ) {
        testDescription = name
        self.before = before
        self.entry = entry
        self.after = after
        self.prefix = prefix
        self.suffix = suffix
        self.refuses = refuses
    }

    struct Rendered {
        let text: [UInt8]
        /// What a program must read, in the order of the keys `V0`, `V1`, …
        let expected: [[UInt8]]
        /// Values whose refusal was not the documented one.
        let surprises: [String]
    }

    /// Renders every value that is not refused into one file.
    func render(_ file: String, _ values: [[UInt8]] = HostileValues.all) throws -> Rendered {
        let single = try Template(name: file, source: Array((before + entry + "\n" + after).utf8))
        var accepted: [[UInt8]] = []
        var surprises: [String] = []
        for value in values {
            let entry: [String: TemplateValue] = ["key": .string("V0"), "value": .text(value, isSecret: true)]
            do {
                _ = try single.render(.map(entry))
                if refuses(value) { surprises.append("accepted: \(value)") } else { accepted.append(value) }
            } catch {
                if !refuses(value) { surprises.append("refused: \(value): \(error)") }
            }
        }
        let items = accepted.enumerated().map { index, value in
            TemplateValue.map(["key": .string("V\(index)"), "value": .text(value, isSecret: true)])
        }
        let all = try Template(
            name: file, source: Array((before + "{{#items}}\n" + entry + "\n{{/items}}\n" + after).utf8))
        let text = try all.render(.map(["items": .list(items)]))
        return Rendered(
            text: text.bytes, expected: accepted.map { Array(prefix.utf8) + $0 + Array(suffix.utf8) },
            surprises: Array(surprises.prefix(10)))
    }
}

/// Values as lines of hexadecimal digits, which every program can print and no program can bend.
enum HexLines {
    static func encode(_ values: [[UInt8]]) -> [String] {
        values.map { $0.map { String(UInt16($0) | 0x100, radix: 16).dropFirst() }.joined() }
    }

    static func split(_ output: [UInt8]) -> [String] {
        var lines = String(decoding: output, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
            .map(String.init)
        if lines.last == "" { lines.removeLast() }
        return lines
    }

    /// The first differences, few enough to read.
    static func differences(_ got: [String], _ expected: [String]) -> [String] {
        var list = zip(got, expected).filter { $0 != $1 }.prefix(5).map { "got \($0), expected \($1)" }
        if got.count != expected.count { list.append("got \(got.count) values, expected \(expected.count)") }
        return list
    }
}
