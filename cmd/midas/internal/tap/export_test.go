package tap

// Mask masks an exchange as a recorder does.
func Mask(secret func(name, value string) bool, request, requestBody, answer, answerBody string) *Exchange {
	e := &Exchange{Kind: Order, Request: &Message{Head: Text(request), Body: Text(requestBody)}, Answer: &Message{Head: Text(answer), Body: Text(answerBody)}}
	newMasker(secret).exchange(e)
	return e
}
