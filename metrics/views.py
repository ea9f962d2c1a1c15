from django.http import JsonResponse
def chart(request): return JsonResponse({})
def search_context(request, fixed_server=None): return {}
