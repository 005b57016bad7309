/// One rendering: the text so far, the place it has come to, and what is wrong.
struct TemplateRenderer {
    private var scanner: any PlaceScanner
    private var problems: ProblemList
    private var bytes: [UInt8] = []
    private var secretRanges: [Range<Int>] = []
    /// What names are looked up in, innermost last.
    private var contexts: [TemplateValue]
    private var line = 1

    init(name: String, language: TargetLanguage, values: TemplateValue) {
        scanner = language.scanner()
        problems = ProblemList(file: name)
        contexts = [values]
    }

    mutating func render(_ nodes: [TemplateNode]) throws(TemplateProblems) -> RenderedText {
        render(nodes, before: .end)
        if let message = scanner.ending() { problems.add(line: line, message) }
        try problems.throwIfAny()
        return RenderedText(bytes: bytes, secretRanges: secretRanges)
    }

    private mutating func render(_ nodes: [TemplateNode], before end: Following) {
        for (index, node) in nodes.enumerated() {
            let following = index + 1 < nodes.count ? Self.start(of: nodes[index + 1]) : end
            switch node {
            case .text(let text, let first): literal(text, line: first)
            case .variable(let name, let line):
                self.line = line
                variable(name, before: following)
            case .section(let name, let isInverted, let content, let line):
                self.line = line
                section(name, isInverted, content, before: following)
            }
        }
    }

    private static func start(of node: TemplateNode) -> Following {
        if case .text(let bytes, _) = node { .text(bytes[...]) } else { .tag }
    }

    private mutating func literal(_ text: [UInt8], line first: Int) {
        line = first
        for byte in text {
            if let message = scanner.read(byte) { problems.add(line: line, message) }
            if byte == .newline { line += 1 }
        }
        bytes += text
    }

    private mutating func variable(_ name: TagName, before following: Following) {
        guard let value = find(name) else { return }
        let scalar: Scalar
        var isSecret = false
        switch value {
        case .null: scalar = .null
        case .boolean(let value): scalar = .boolean(value)
        case .text(let bytes, let secret):
            guard !bytes.contains(0) else {
                problems.add(line: line, "\(name.text) has a NUL byte, which no configuration file can carry")
                return
            }
            isSecret = secret
            scalar = .text(name.filter == .url ? Self.percentEncoded(bytes) : bytes)
        case .list:
            problems.add(line: line, "\(name.text) is a list: a section, {{#\(name.text)}}…{{/\(name.text)}}, renders its items")
            return
        case .map(let entries):
            let first = entries.keys.min().map { ": {{\(name.text).\($0)}} is one" } ?? ""
            problems.add(line: line, "\(name.text) is a map, not a value; name one of its entries" + first)
            return
        }
        do {
            let quoted = try scanner.quote(scalar, before: following)
            if isSecret { secretRanges.append(bytes.count..<bytes.count + quoted.count) }
            bytes += quoted
        } catch {
            problems.add(line: line, "\(name.text) \(error.reason)")
        }
    }

    private mutating func section(
        _ name: TagName, _ isInverted: Bool, _ content: [TemplateNode], before following: Following
    ) {
        guard let value = find(name) else { return }
        if isInverted {
            if !value.isTruthy { render(content, before: following) }
            return
        }
        guard value.isTruthy else { return }
        let items: [TemplateValue]
        if case .list(let list) = value { items = list } else { items = [value] }
        let again = content.first.map(Self.start(of:)) ?? following
        for (index, item) in items.enumerated() {
            contexts.append(item)
            render(content, before: index + 1 < items.count ? again : following)
            contexts.removeLast()
        }
    }

    // MARK: names

    /// As Mustache looks names up: the first part in the innermost map that has it, the others strictly below. What is nowhere
    /// is a problem, not an empty text.
    private mutating func find(_ name: TagName) -> TemplateValue? {
        guard let first = name.parts.first else { return contexts.last }
        var value: TemplateValue?
        for context in contexts.reversed() {
            if case .map(let entries) = context, let found = entries[first] {
                value = found
                break
            }
        }
        for part in name.parts.dropFirst() {
            if case .map(let entries)? = value { value = entries[part] } else { value = nil }
        }
        if value == nil {
            problems.add(line: line, "unknown name \"\(name.text)\"" + Spelling.hint(for: name.text, among: knownNames()))
        }
        return value
    }

    private func knownNames() -> Set<String> {
        var names: Set<String> = []
        func collect(_ value: TemplateValue, _ prefix: String, _ depth: Int) {
            guard depth < 8, case .map(let entries) = value else { return }
            for (key, entry) in entries {
                names.insert(prefix + key)
                collect(entry, prefix + key + ".", depth + 1)
            }
        }
        for context in contexts { collect(context, "", 0) }
        return names
    }

    private static func percentEncoded(_ bytes: [UInt8]) -> [UInt8] {
        bytes.flatMap { byte -> [UInt8] in
            byte.isWord || "-.~".utf8.contains(byte)
                ? [byte] : [.percent] + byte.hex.map { $0 >= UInt8(ascii: "a") ? $0 - 32 : $0 }
        }
    }
}
