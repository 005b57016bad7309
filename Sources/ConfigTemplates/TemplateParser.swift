/// A template's parts. Comments and delimiter changes leave none.
indirect enum TemplateNode: Sendable {
    case text([UInt8], line: Int)
    case variable(TagName, line: Int)
    case section(TagName, isInverted: Bool, content: [TemplateNode], line: Int)
}

/// `db.password` in a tag, split at its dots; the implicit iterator `.` has no parts. `filter` is what follows `|`.
struct TagName: Sendable, Equatable {
    let text: String
    let parts: [String]
    let filter: Filter?

    enum Filter: String, Sendable, CaseIterable {
        /// Percent-encodes all but the unreserved characters of RFC 3986, for a value inside a URL.
        case url
    }
}

/// Splits a template into parts, by the rules of the Mustache specification (its interpolation, sections, inverted, comments and
/// delimiters modules), and collects what is wrong with it.
struct TemplateParser {
    private let source: [UInt8]
    private(set) var problems: ProblemList
    private(set) var header: TemplateHeader?

    private var open = Array("{{".utf8)
    private var close = Array("}}".utf8)
    private var position = 0
    private var line = 1
    /// Sections that are open, outermost first; the first is the template itself and has no name.
    private var levels: [Level] = [Level(name: nil, isInverted: false, line: 1)]

    private struct Level {
        let name: TagName?
        let isInverted: Bool
        let line: Int
        var nodes: [TemplateNode] = []
    }

    init(name: String, source: [UInt8]) {
        self.source = source
        problems = ProblemList(file: name)
    }

    mutating func parse() -> [TemplateNode] {
        if source.starts(with: [0xef, 0xbb, 0xbf]) {
            problems.add(line: 1, "the template begins with a byte order mark, which would reach the rendered file; remove it")
        }
        while let start = find(open, from: position) {
            text(upTo: start)
            if !tag(at: start) { break }
        }
        text(upTo: source.count)
        for level in levels.dropFirst().reversed() {
            problems.add(line: level.line, "the section \"\(level.name?.text ?? "")\" is never closed")
        }
        return levels[0].nodes
    }

    // MARK: text

    private func find(_ pattern: [UInt8], from start: Int) -> Int? {
        guard start < source.count else { return nil }
        return source[start...].firstRange(of: pattern)?.lowerBound
    }

    private mutating func text(upTo end: Int) {
        guard position < end else { return }
        let bytes = Array(source[position..<end])
        add(.text(bytes, line: line))
        skip(to: end)
    }

    private mutating func skip(to end: Int) {
        line += source[position..<end].count { $0 == .newline }
        position = end
    }

    private mutating func add(_ node: TemplateNode) {
        // Neighbours become one text where their lines follow each other, so that what follows a tag is seen whole.
        if case .text(let more, let line) = node, case .text(let before, let first)? = levels[levels.count - 1].nodes.last,
            first + before.count(where: { $0 == .newline }) == line
        {
            levels[levels.count - 1].nodes[levels[levels.count - 1].nodes.count - 1] = .text(before + more, line: first)
        } else {
            levels[levels.count - 1].nodes.append(node)
        }
    }

    // MARK: tags

    /// False when the rest of the template cannot be made out.
    private mutating func tag(at start: Int) -> Bool {
        let contentStart = start + open.count
        if open == Array("{{".utf8), contentStart < source.count, source[contentStart] == UInt8(ascii: "{") {
            problems.add(
                line: line,
                "{{{ }}} puts in a value as it is, which is refused: write {{ }}, and the value is quoted for its place")
            guard let end = find(Array("}}}".utf8), from: contentStart) else { return false }
            skip(to: end + 3)
            return true
        }
        var end = find(close, from: contentStart)
        let sigil = source[contentStart...].first { !$0.isBlank }
        if sigil == .equals { end = find([.equals] + close, from: contentStart + 1).map { $0 + 1 } }
        guard let end else {
            problems.add(line: line, "a tag is opened here and never closed")
            return false
        }
        let content = source[contentStart..<end].trimmed
        let after = end + close.count
        // A forgotten end makes the tag swallow what follows, up to the end of another tag.
        if sigil != UInt8(ascii: "!"), content.contains(.newline), content.firstRange(of: open) != nil {
            problems.add(line: line, "a tag is opened here and not closed before the next one")
            skip(to: contentStart)
            return true
        }

        var kind = content.first ?? 0
        if !"#^/!=&>".utf8.contains(kind) { kind = 0 }
        if kind != 0 && kind != UInt8(ascii: "&") && kind != UInt8(ascii: ">"), let whole = wholeLine(start..<after) {
            takeBackBlanks(start - whole.lowerBound)
            perform(kind, content, from: start)
            skip(to: whole.upperBound)
        } else {
            perform(kind, content, from: start)
            skip(to: after)
        }
        return true
    }

    private mutating func perform(_ kind: UInt8, _ content: ArraySlice<UInt8>, from start: Int) {
        switch kind {
        case UInt8(ascii: "!"): comment(content.dropFirst().trimmed, from: start)
        case .equals: setDelimiters(content)
        case UInt8(ascii: "&"):
            problems.add(
                line: line,
                "{{& }} puts in a value as it is, which is refused: write {{ }}, and the value is quoted for its place")
        case UInt8(ascii: ">"):
            problems.add(line: line, "{{> }}: partials are not supported; a template is one file")
        case UInt8(ascii: "#"), UInt8(ascii: "^"):
            let name = name(content.dropFirst().trimmed)
            if let filter = name?.filter {
                problems.add(line: line, "a section takes no filter (\"\(filter)\")")
            }
            levels.append(
                Level(
                    name: name ?? TagName(text: "", parts: [], filter: nil), isInverted: kind == UInt8(ascii: "^"),
                    line: line))
        case UInt8(ascii: "/"): closeSection(content.dropFirst().trimmed)
        default:
            if let name = name(content) { add(.variable(name, line: line)) }
        }
    }

    /// The whole line that a tag stands alone on, its end included; nil where something else stands on it.
    private func wholeLine(_ tag: Range<Int>) -> Range<Int>? {
        var start = tag.lowerBound
        while start > 0, source[start - 1].isBlank { start -= 1 }
        guard start == 0 || source[start - 1] == .newline else { return nil }
        var end = tag.upperBound
        while end < source.count, source[end].isBlank { end += 1 }
        if end == source.count { return start..<end }
        if source[end] == .carriageReturn, end + 1 < source.count, source[end + 1] == .newline { end += 1 }
        return source[end] == .newline ? start..<end + 1 : nil
    }

    /// Blanks before a tag that stands alone on its line are already in the text before it.
    private mutating func takeBackBlanks(_ count: Int) {
        let last = levels.count - 1
        guard count > 0, case .text(let bytes, let line)? = levels[last].nodes.popLast() else { return }
        if bytes.count > count { levels[last].nodes.append(.text(bytes.dropLast(count), line: line)) }
    }

    private mutating func closeSection(_ content: ArraySlice<UInt8>) {
        let text = String(decoding: content, as: UTF8.self)
        guard levels.count > 1 else {
            problems.add(line: line, "{{/\(text)}} closes a section that is not open")
            return
        }
        let level = levels.removeLast()
        guard let name = level.name else { return }
        if !name.text.isEmpty, name.text != text {
            problems.add(
                line: line,
                "{{/\(text)}} stands where the section \"\(name.text)\" of line \(level.line) should be closed")
        }
        add(.section(name, isInverted: level.isInverted, content: level.nodes, line: level.line))
    }

    private mutating func setDelimiters(_ content: ArraySlice<UInt8>) {
        let words = content.dropFirst().dropLast().split { $0.isBlank || $0 == .newline || $0 == .carriageReturn }
        guard content.count > 2, content.last == .equals, words.count == 2, !words.contains(where: { $0.contains(.equals) })
        else {
            problems.add(line: line, "delimiters are changed by {{=OPEN CLOSE=}}, two words without =")
            return
        }
        // `tag` still needs the old ones to step over this tag, and has taken their lengths already.
        open = Array(words[0])
        close = Array(words[1])
    }

    private mutating func comment(_ content: ArraySlice<UInt8>, from start: Int) {
        let text = String(decoding: content, as: UTF8.self)
        guard text.hasPrefix("amorce:") else { return }
        guard line == 1, source[..<start].allSatisfy(\.isBlank) else {
            problems.add(line: line, "the header {{! amorce: … }} stands at the start of the first line or nowhere")
            return
        }
        var header = TemplateHeader()
        header.parse(text.dropFirst("amorce:".count)) { problems.add(line: 1, $0) }
        self.header = header
    }

    // MARK: names

    private mutating func name(_ content: ArraySlice<UInt8>) -> TagName? {
        let pieces = content.split(separator: UInt8(ascii: "|"), omittingEmptySubsequences: false).map(\.trimmed)
        let text = pieces.first.flatMap { String(validating: $0, as: UTF8.self) } ?? ""
        guard !text.isEmpty, !text.utf8.contains(where: { $0 <= .space || $0 == 0x7f }) else {
            problems.add(line: line, text.isEmpty ? "a tag without a name" : "a name in a tag has no blanks")
            return nil
        }
        var filter: TagName.Filter?
        for piece in pieces.dropFirst() {
            let word = String(decoding: piece, as: UTF8.self)
            guard let known = TagName.Filter(rawValue: word), filter == nil else {
                let names = TagName.Filter.allCases.map(\.rawValue)
                problems.add(
                    line: line,
                    "unknown filter \"\(word)\"" + Spelling.hint(for: word, among: names)
                        + "; there is \(names.joined(separator: ", ")), once")
                return nil
            }
            filter = known
        }
        if text == "." { return TagName(text: text, parts: [], filter: filter) }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard !parts.contains("") else {
            problems.add(line: line, "the name \"\(text)\" has an empty part")
            return nil
        }
        return TagName(text: text, parts: parts, filter: filter)
    }
}
