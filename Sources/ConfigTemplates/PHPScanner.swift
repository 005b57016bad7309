/// PHP files, from the HTML around `<?php … ?>` to heredocs. Every byte string can be carried in code; the rules are
/// those of PHP's own scanner (Zend/zend_language_scanner.l).
struct PHPScanner: PlaceScanner {
    private enum Place: Equatable {
        case html
        case code
        case single
        /// Double quotes; a heredoc where it has a label.
        case double(label: [UInt8]?)
        case nowdoc(label: [UInt8])
        /// Behind `<<<`, up to the end of the line.
        case label
        /// `{$…}` or `${…}` in double quotes or a heredoc.
        case interpolation(depth: Int, label: [UInt8]?)
        case backtick
        /// After `#`, where `[` would begin an attribute.
        case hash
        case lineComment
        case blockComment
    }
    private var place = Place.html
    private var html = HTMLScanner()
    /// The author's bytes since the place began or the last value stood.
    private var tail: [UInt8] = []
    private var isEscaped = false
    /// In a heredoc: the line so far, blanks and author's bytes alone, for its closing label.
    private var lineText: [UInt8] = []
    /// Whether a value stands in the current string already.
    private var hasValue = false

    private mutating func enter(_ next: Place) {
        place = next
        tail = []
        isEscaped = false
        hasValue = false
        lineText = []
    }

    private mutating func leaveString(_ quote: UInt8) {
        enter(.code)
        tail = [quote]
    }

    mutating func read(_ byte: UInt8) -> String? {
        tail.append(byte)
        if tail.count > 512 { tail.removeFirst(256) }
        switch place {
        case .html: return readHTML(byte)
        case .code: readCode(byte)
        case .single:
            if byte.unescaped(&isEscaped) == .singleQuote { leaveString(byte) }
        case .backtick:
            if byte.unescaped(&isEscaped) == .backtick { leaveString(byte) }
        case .double(let label): readDouble(byte, label)
        case .nowdoc(let label): readDocumentLine(byte, label)
        case .label: readLabel(byte)
        case .interpolation(let depth, let label):
            if byte == UInt8(ascii: "{") {
                place = .interpolation(depth: depth + 1, label: label)
            } else if byte == UInt8(ascii: "}") {
                place = depth > 1 ? .interpolation(depth: depth - 1, label: label) : .double(label: label)
                tail = [byte]
            }
        case .hash:
            if byte == UInt8(ascii: "[") {
                enter(.code)
            } else {
                place = .lineComment
                readLineComment(byte)
            }
        case .lineComment: readLineComment(byte)
        case .blockComment:
            if tail.hasSuffix("*/") { enter(.code) }
        }
        return nil
    }

    private mutating func readHTML(_ byte: UInt8) -> String? {
        let end = tail.suffix(6).map(\.lowercased)
        let isOpen = end.dropLast().elementsEqual("<?php".utf8)
        if end.hasSuffix("<?=") || isOpen && (byte.isBlank || byte == .newline || byte == .carriageReturn) {
            html.forgetAngle()
            enter(.code)
        } else if end.count >= 3, end.dropLast().hasSuffix("<?"), byte != UInt8(ascii: "p"), byte != UInt8(ascii: "P"),
            byte != UInt8(ascii: "x"), byte != UInt8(ascii: "=")
        {
            return "<? alone begins PHP on some hosts and not on others: write <?php or <?="
        } else if byte != UInt8(ascii: "?"), !end.contains("<?") {
            _ = html.read(byte)
        }
        return nil
    }

    private mutating func readCode(_ byte: UInt8) {
        switch byte {
        case .singleQuote: enter(.single)
        case .doubleQuote: enter(.double(label: nil))
        case .backtick: enter(.backtick)
        case .hash: enter(.hash)
        default:
            if tail.hasSuffix("//") { enter(.lineComment) }
            if tail.hasSuffix("/*") { enter(.blockComment) }
            if tail.hasSuffix("?>") { enter(.html) }
            if tail.hasSuffix("<<<") { enter(.label) }
        }
    }

    private mutating func readLineComment(_ byte: UInt8) {
        if byte == .newline || byte == .carriageReturn { enter(.code) }
        if tail.hasSuffix("?>") { enter(.html) }
    }

    private mutating func readDouble(_ byte: UInt8, _ label: [UInt8]?) {
        if let label, readDocumentLine(byte, label) { return }
        switch byte.unescaped(&isEscaped) {
        case .doubleQuote? where label == nil: leaveString(byte)
        case UInt8(ascii: "{")? where tail.dropLast().last == .dollar,
            .dollar? where tail.dropLast().last == UInt8(ascii: "{"):
            place = .interpolation(depth: 1, label: label)
        default: break
        }
    }

    /// Whether the closing label has just been read (with the byte after it).
    @discardableResult
    private mutating func readDocumentLine(_ byte: UInt8, _ label: [UInt8]) -> Bool {
        if byte == .newline || byte == .carriageReturn {
            let isEnd = lineText.drop { $0.isBlank }.elementsEqual(label)
            if isEnd { enter(.code) } else { lineText = [] }
            return isEnd
        }
        if !(byte.isWord || byte >= 0x80), lineText.drop(while: { $0.isBlank }).elementsEqual(label) {
            enter(.code)
            tail = [byte]
            readCode(byte)
            return true
        }
        lineText.append(byte)
        return false
    }

    private mutating func readLabel(_ byte: UInt8) {
        guard byte == .newline || byte == .carriageReturn else { return }
        var word = tail.trimmed
        let isRaw = word.first == .singleQuote
        if let first = word.first, first == .singleQuote || first == .doubleQuote, word.last == first, word.count > 2 {
            word = word.dropFirst().dropLast()
        }
        let name = Array(word)
        if name.isEmpty || !name.allSatisfy({ $0.isWord || $0 >= 0x80 }) {
            enter(.code)
        } else {
            enter(isRaw ? .nowdoc(label: name) : .double(label: name))
        }
    }

    // MARK: values

    mutating func quote(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8] {
        if isEscaped { throw .place("an escape sequence that the template began", "write the backslash twice") }
        let bytes: [UInt8]
        switch place {
        case .html:
            if tail.suffix(5).contains("<?") { throw .place("the tag that begins PHP") }
            let text = try html.quote(value, before: following)
            // PHP swallows a newline right behind `?>`.
            bytes = text.first == .newline && tail.isEmpty ? Array("&#10;".utf8) + text.dropFirst() : text
        case .code: return try literal(value, before: following)
        case .single: bytes = Self.singleQuoted(try value.bytes())
        case .double(let label): bytes = try doubleQuoted(try value.bytes(), label: label, before: following)
        case .nowdoc: throw .place("a nowdoc", "make it a heredoc, or write the tag outside a string")
        case .label: throw .place("the label of a heredoc")
        case .interpolation:
            throw .place("an expression inside a string", "write it outside, and join the strings with a dot")
        case .backtick: throw .place("a shell command in backticks", "use escapeshellarg()")
        case .hash, .lineComment, .blockComment:
            bytes = try CommentText.quote(value, refusing: "*?")
            let before = tail.last
            if before == UInt8(ascii: "*") && bytes.first == UInt8(ascii: "/")
                || before == UInt8(ascii: "?") && bytes.first == UInt8(ascii: ">")
                || place == .hash && bytes.first == UInt8(ascii: "[")
            {
                throw Refusal("would end the comment that it stands in")
            }
            if place == .hash { place = .lineComment }
        }
        tail = []
        // What the author writes behind a value on its line is no closing label.
        if !bytes.isEmpty { lineText = [.backslash] }
        hasValue = true
        return bytes
    }

    /// A tag in code stands for a whole literal.
    private mutating func literal(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8] {
        func touches(_ byte: UInt8?) -> Bool {
            guard let byte else { return false }
            return byte.isWord || byte >= 0x80 || "'\"`$\\".utf8.contains(byte)
        }
        guard !touches(tail.last), !touches(following.first), !(tail.isEmpty && hasValue), !following.isTag else {
            throw Refusal(
                "touches other PHP code: a tag outside quotes becomes a whole literal, with its own quotes; "
                    + "put blanks around it"
            )
        }
        tail = []
        hasValue = true
        switch value {
        case .null: return Array("null".utf8)
        case .boolean: return try value.bytes()
        case .text(let bytes): return [.singleQuote] + Self.singleQuoted(bytes) + [.singleQuote]
        }
    }

    private static func singleQuoted(_ bytes: [UInt8]) -> [UInt8] {
        bytes.flatMap { $0 == .singleQuote || $0 == .backslash ? [.backslash, $0] : [$0] }
    }

    private func doubleQuoted(
        _ bytes: [UInt8], label: [UInt8]?, before following: Following
    ) throws(Refusal) -> [UInt8] {
        if Self.endsInSimpleIndex(tail) {
            throw .place("the index of a variable inside a string", "write it outside, and join the strings with a dot")
        }
        if let label, bytes.isEmpty, lineText.allSatisfy(\.isBlank), case .text(let rest) = following,
            rest.drop(while: { $0.isBlank }).starts(with: label)
        {
            throw Refusal("is empty, and what follows it in its line would end the heredoc")
        }
        var text: [UInt8] = []
        for (index, byte) in bytes.enumerated() {
            // The first byte could lengthen what the author wrote before it (`$name`, `\1`, the label of a heredoc),
            // the last could begin something with what follows (`{` and `$`).
            let isEdge =
                index == 0 && (label != nil || hasValue || !tail.isEmpty)
                || index == bytes.count - 1 && byte == UInt8(ascii: "{")
            switch byte {
            case _ where isEdge: text += Array("\\x".utf8) + byte.hex
            case .newline: text += Array("\\n".utf8)
            case .tab: text += Array("\\t".utf8)
            case .carriageReturn: text += Array("\\r".utf8)
            case .backslash, .dollar: text += [.backslash, byte]
            // In a heredoc a backslash before a quote would stay.
            case .doubleQuote where label == nil: text += [.backslash, byte]
            case _ where byte.isControl: text += Array("\\x".utf8) + byte.hex
            default: text.append(byte)
            }
        }
        return text
    }

    /// `$name[` without its `]`.
    private static func endsInSimpleIndex(_ tail: [UInt8]) -> Bool {
        guard let bracket = tail.lastIndex(of: UInt8(ascii: "[")), !tail[bracket...].contains(UInt8(ascii: "]")) else {
            return false
        }
        let before = tail[..<bracket].reversed().drop { $0.isWord || $0 >= 0x80 }
        return before.first == .dollar && before.startIndex != tail[..<bracket].reversed().startIndex
    }

    func ending() -> String? {
        switch place {
        case .html, .code, .hash, .lineComment: nil
        case .double(let label?), .nowdoc(let label):
            lineText.drop { $0.isBlank }.elementsEqual(label) ? nil : "a heredoc is still open where the template ends"
        case .blockComment: "a comment is still open where the template ends"
        default: "a string is still open where the template ends"
        }
    }
}
