/// Text of a language that amorce does not know: a value passes as it is, and control characters, which could begin a line or
/// end a field, are refused.
struct PlainScanner: PlaceScanner {
    mutating func read(_ byte: UInt8) -> String? { nil }

    mutating func quote(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8] {
        let bytes = try value.bytes()
        guard !bytes.contains(where: \.isControl) else {
            throw Refusal(
                "has a control character (a line end, a tab, …), and the file is plain text, without a way to quote it; "
                    + "name the file's language in the header if it has one")
        }
        return bytes
    }
}

/// JSON (RFC 8259): inside the author's quotes a value is escaped, elsewhere it becomes a whole string.
struct JSONScanner: PlaceScanner {
    private var isString = false
    private var isEscaped = false

    mutating func read(_ byte: UInt8) -> String? {
        if isEscaped {
            isEscaped = false
        } else if isString && byte == .backslash {
            isEscaped = true
        } else if byte == .doubleQuote {
            isString.toggle()
        }
        return nil
    }

    mutating func quote(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8] {
        if isEscaped { throw .place("an escape sequence that the template began") }
        if !isString {
            if case .null = value { return Array("null".utf8) }
            if case .boolean = value { return try value.bytes() }
        }
        let bytes = try value.bytes()
        guard String(validating: bytes, as: UTF8.self) != nil else {
            throw Refusal("is not UTF-8, and JSON is nothing else")
        }
        var text = isString ? [] : [UInt8.doubleQuote]
        for byte in bytes {
            switch byte {
            case .doubleQuote, .backslash: text += [.backslash, byte]
            case _ where byte.isControl: text += Array("\\u00".utf8) + byte.hex
            default: text.append(byte)
            }
        }
        return isString ? text : text + [.doubleQuote]
    }

    func ending() -> String? { isString ? "a string is still open where the template ends" : nil }
}

/// HTML: values in text and in quoted attributes. What scripts and styles do with text is a grammar of its own.
struct HTMLScanner: PlaceScanner {
    private enum Place: Equatable {
        case text
        case tag(name: [UInt8])
        case attribute(quote: UInt8, name: [UInt8])
        case comment
        /// The content of `script` or `style`, up to its end tag.
        case raw([UInt8])
    }
    private var place = Place.text
    /// Whether the tag's own name is still being read.
    private var isName = false
    /// The author's last bytes in this place.
    private var tail: [UInt8] = []

    mutating func read(_ byte: UInt8) -> String? {
        tail.append(byte)
        if tail.count > 16 { tail.removeFirst() }
        switch place {
        case .text:
            if tail.count >= 2, tail[tail.count - 2] == UInt8(ascii: "<"), byte.isLetter || byte == UInt8(ascii: "/") {
                isName = byte.isLetter
                enter(.tag(name: isName ? [byte.lowercased] : []))
            } else if tail.hasSuffix("<!--") {
                enter(.comment)
            }
        case .tag(var name):
            if byte == UInt8(ascii: ">") {
                let isRaw = name == Array("script".utf8) || name == Array("style".utf8)
                enter(isRaw ? .raw(name) : .text)
            } else if byte == .doubleQuote || byte == .singleQuote, tail.dropLast().last(where: { !$0.isBlank }) == .equals {
                enter(.attribute(quote: byte, name: name))
            } else if isName {
                isName = byte.isWord || byte == UInt8(ascii: "-")
                if isName { name.append(byte.lowercased) }
                place = .tag(name: name)
            }
        case .attribute(let quote, let name):
            if byte == quote { enter(.tag(name: name)) }
        case .comment:
            if tail.hasSuffix("-->") { enter(.text) }
        case .raw(let name):
            let end = Array("</".utf8) + name
            if tail.map(\.lowercased).suffix(end.count).elementsEqual(end) { enter(.tag(name: [])) }
        }
        return nil
    }

    private mutating func enter(_ next: Place) {
        place = next
        tail = []
    }

    /// The `<` that was read last began something that is not HTML, `<?php`.
    mutating func forgetAngle() {
        if tail.last == UInt8(ascii: "<") { tail.removeLast() }
    }

    mutating func quote(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8] {
        switch place {
        case .text where tail.last == UInt8(ascii: "<"): throw .place("the name of an HTML tag")
        case .text, .attribute: break
        case .tag: throw .place("an HTML tag outside quotes", "write NAME=\"{{…}}\"")
        case .comment: throw .place("an HTML comment")
        case .raw(let name): throw .place("a <\(String(decoding: name, as: UTF8.self))> element", "put it into a data attribute")
        }
        tail = []
        return try value.bytes().flatMap { byte -> [UInt8] in
            switch byte {
            case UInt8(ascii: "&"): Array("&amp;".utf8)
            case UInt8(ascii: "<"): Array("&lt;".utf8)
            case UInt8(ascii: ">"): Array("&gt;".utf8)
            case .doubleQuote: Array("&quot;".utf8)
            case .singleQuote: Array("&#39;".utf8)
            // A parser turns a bare one into a newline.
            case .carriageReturn: Array("&#13;".utf8)
            default: [byte]
            }
        }
    }
}
